"""Levels: what an attacker knows and how often it may ask; their order, their words, and who is chosen at each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sparseguard.record import Attacker, Record
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


def level_of(attacker: Attacker) -> str:
    """Return an attacker's level; records before schema 2 have its knowledge alone."""
    return attacker.level or attacker.knowledge


def is_control(attacker: Attacker) -> bool:
    """Return whether an attacker is there to be compared with another one."""
    return not attacker.competes and not attacker.floor


def chosen_at(record: Record, level: str | None, metric: str) -> Attacker | None:
    """Return the attacker chosen at a level for a metric; never a floor or a control."""
    name = record.chosen.get(level or "", {}).get(metric)
    found = next((attacker for attacker in record.attackers if attacker.name == name), None)
    return found if found and found.competes and not found.floor else None


def setting_words(setting: Mapping[str, Any]) -> tuple[str, ...]:
    """Return in words what is special about the circumstances of an attack.

    Example:
        >>> setting_words({"repeats": 4, "share": 0.5, "control": "none"})
        ('each image observed 4 times', 'learns from 50 % of its images')
        >>> setting_words({})
        ()
    """
    words = []
    if setting.get("repeats", 1) != 1:
        words.append(f"each image observed {setting['repeats']} times")
    control = setting.get("control") or "none"
    if control != "none":
        words.append(_CONTROLS.get(control, str(control)))
    if setting.get("share", 1) != 1:
        words.append(f"learns from {100 * setting['share']:.3g} % of its images")
    if setting.get("data"):
        words.append(f"learns from images of another data set, {setting['data']}")
    if setting.get("images"):
        words.append(f"{setting['images']:,} images of each part attacked")
    return tuple(words)
