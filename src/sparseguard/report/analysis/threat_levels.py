"""Levels: what an attacker knows and how often it may ask; their order, their words, and who is chosen at each."""

from __future__ import annotations

from collections.abc import Iterable

from sparseguard.record import Conditions, FeatureInversionAttack, Record
from sparseguard.report.text.wording import KNOWLEDGE

BASE = "black-box"
_TIMES = " ×"  # noqa: RUF001
_CONTROLS = {
    "shuffled-features": "shuffled features: learns with the features of another image beside each of its images; "
    "what it reaches needs no leak",
    "untrained-target": "untrained target: attacks the model as it was before training",
}


def split_level(level: str) -> tuple[str, int]:
    """Return the knowledge a level stands for and how often each image is sent.

    Example:
        >>> split_level("white-box ×16"), split_level("black-box")
        (('white-box', 16), ('black-box', 1))
    """  # noqa: RUF002
    knowledge, _, times = level.rpartition(_TIMES)
    return (knowledge, int(times)) if knowledge and times.isdecimal() else (level, 1)


def in_order(levels: Iterable[str]) -> list[str]:
    """Return levels in the order of what is known, each followed by those with repeated observations.

    Example:
        >>> in_order(["white-box", "black-box ×16", "black-box ×4", "black-box"])
        ['black-box', 'black-box ×4', 'black-box ×16', 'white-box']
    """  # noqa: RUF002
    known = list(KNOWLEDGE)

    def place(level: str) -> tuple[int, str, int]:
        knowledge, times = split_level(level)
        return known.index(knowledge) if knowledge in known else len(known), knowledge, times

    return sorted(set(levels), key=place)


def level_sentence(level: str) -> str:
    """Return in words what an attacker at a level has.

    Example:
        >>> level_sentence("gray-box ×16")
        'the attacker also knows the defense and its settings; each private image is observed 16 times'
    """  # noqa: RUF002
    knowledge, times = split_level(level)
    words = KNOWLEDGE.get(knowledge, "not known to this version of sparseguard")
    return words if times == 1 else f"{words}; each private image is observed {times} times"


def level_of(attacker: FeatureInversionAttack) -> str:
    """Return an attacker's level: its knowledge, and how often each image is sent."""
    return level_label(attacker.knowledge, attacker.queries)


def level_label(knowledge: str, queries: int) -> str:
    """Return the label of a level.

    Example:
        >>> level_label("white-box", 16), level_label("black-box", 1)
        ('white-box ×16', 'black-box')
    """  # noqa: RUF002
    return knowledge if queries == 1 else f"{knowledge}{_TIMES}{queries}"


def levels_of(record: Record) -> list[str]:
    """Return the levels at which a record has a chosen attack, in the order of what is known."""
    chosen = record.feature_inversion.chosen if record.feature_inversion else []
    return in_order(level_label(choice.knowledge, choice.queries) for choice in chosen)


def is_control(attacker: FeatureInversionAttack) -> bool:
    """Return whether an attacker is there to be compared with another one."""
    return not attacker.eligible and not attacker.floor


def chosen_at(record: Record, level: str | None, metric: str) -> FeatureInversionAttack | None:
    """Return the attacker chosen at a level for a metric; never a floor or a control."""
    outcome = record.feature_inversion
    found = outcome.choice(*split_level(level), metric) if outcome and level else None
    return found if found and found.eligible and not found.floor else None


def setting_words(conditions: Conditions) -> tuple[str, ...]:
    """Return in words what is special about the conditions of an attack.

    Example:
        >>> setting_words(Conditions(queries=4, auxiliary_fraction=0.5))
        ('each image observed 4 times', 'learns from 50 % of its images')
        >>> setting_words(Conditions())
        ()
    """
    words = []
    if conditions.queries != 1:
        words.append(f"each image observed {conditions.queries} times")
    if conditions.control != "none":
        words.append(_CONTROLS.get(conditions.control, conditions.control))
    if conditions.auxiliary_fraction != 1:
        words.append(f"learns from {100 * conditions.auxiliary_fraction:.3g} % of its images")
    if conditions.dataset:
        words.append(f"learns from images of another data set, {conditions.dataset}")
    if conditions.max_images:
        words.append(f"{conditions.max_images:,} images of each part attacked")
    return tuple(words)
