"""Sentences that every form of the report shares."""

from __future__ import annotations

from collections.abc import Iterable

from sparseguard.record import Conditions, MetricDescription
from sparseguard.report.analysis.adversary import Adversary
from sparseguard.report.text.numbers import format_chance

_KNOWLEDGE = {
    "black-box": "the attacker has auxiliary images and the target's outputs for them",
    "gray-box": "the attacker also knows the defense and its settings",
    "white-box": "the attacker also has the target's weights",
}
_CONTROLS = {
    "shuffled-features": "shuffled features: learns with the features of another image beside each of its images; "
    "what it reaches needs no features",
    "untrained-target": "untrained target: attacks the model as it was before training",
}


def describe_adversary(adversary: Adversary) -> str:
    """Return what an adversary has.

    Example:
        >>> describe_adversary(Adversary("gray-box", 16))
        'the attacker also knows the defense and its settings; it observes each private image 16 times'
    """
    words = _KNOWLEDGE.get(adversary.knowledge, "this version of sparseguard does not know it")
    return words if adversary.queries == 1 else f"{words}; it observes each private image {adversary.queries} times"


def describe_identification(sizes: dict[str, int]) -> str:
    """Return among how many images id@1 was measured, from the number of images by split.

    Example:
        >>> describe_identification({"private": 2000, "test": 900})
        'id@1 among N = 2,000 private images (chance 0.0005), among N = 900 test images (chance 0.0011).'
        >>> describe_identification({})
        'id@1 was not measured.'
    """
    if not sizes:
        return "id@1 was not measured."
    words = (f"among N = {size:,} {split} images (chance {format_chance(size)})" for split, size in sizes.items())
    return f"id@1 {', '.join(words)}."


def describe_direction(metrics: Iterable[MetricDescription]) -> str:
    """Return which values of the metrics mean that more leaks.

    Example:
        >>> from sparseguard.record import MetricDescription as Metric
        >>> describe_direction([Metric(label="PSNR", direction="higher"), Metric(label="LPIPS", direction="lower")])
        'Higher PSNR and lower LPIPS mean that more leaks.'
    """
    labels: dict[str, list[str]] = {}
    for metric in metrics:
        labels.setdefault(metric.direction, []).append(metric.label)
    words = " and ".join(f"{direction} {_join(names)}" for direction, names in labels.items())
    return f"{words[:1].upper()}{words[1:]} mean that more leaks." if words else ""


def describe_conditions(conditions: Conditions) -> tuple[str, ...]:
    """Return the conditions of an attack that differ from the usual ones.

    Example:
        >>> describe_conditions(Conditions(queries=4, auxiliary_fraction=0.5))
        ('observes each image 4 times', 'learns from 50 % of the auxiliary data')
        >>> describe_conditions(Conditions())
        ()
    """
    words = []
    if conditions.queries != 1:
        words.append(f"observes each image {conditions.queries} times")
    if conditions.control != "none":
        words.append(_CONTROLS[conditions.control])
    if conditions.auxiliary_fraction != 1:
        words.append(f"learns from {100 * conditions.auxiliary_fraction:.3g} % of the auxiliary data")
    if conditions.known_private:
        words.append(f"knows {100 * conditions.known_private:.3g} % of the private images")
    if conditions.dataset:
        words.append(f"learns from images of another data set, {conditions.dataset}")
    if conditions.max_images:
        words.append(f"attacks {conditions.max_images:,} images of each split")
    return tuple(words)


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
