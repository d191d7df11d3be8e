"""Sentences and number formats that every form of the report shares."""

from __future__ import annotations

from typing import NamedTuple

MISSING = "not available"


class Metric(NamedTuple):
    """How a metric is printed."""

    label: str
    unit: str
    digits: int


METRICS = {"psnr": Metric("PSNR", "dB", 2), "ssim": Metric("SSIM", "", 3), "id@1": Metric("id@1", "", 3)}
PARTS = ("private", "test")
KNOWLEDGE = {
    "black-box": "the attacker has images of its own and what the model gives away for them",
    "gray-box": "the attacker also knows the defense and its settings",
    "white-box": "the attacker also has the model's weights",
}
THREATS = {
    "end-to-end": "The attacker sees the output of the last hidden layer and wants each private image back.",
    "split": "The attacker sees the output of the first linear layer, as the server does in split inference, "
    "and wants each private image back.",
    "plug-and-play": "The attacker has the weights and searches a generator for images of each class.",
}
UNDEFENDED = "none"
CONTROLS = ("standardize-only", "conv-control", "relu-threshold", "low-rank", "downsample")
"""Defenses that are there to be compared with: each has one property of another defense without the rest of it."""
DIRECTION = "Higher PSNR, SSIM and id@1 mean that more leaks."


def threat_sentence(threat: str, tap: str = "") -> str:
    """Return what a threat means in one sentence; one that is called as its tap is that of an audit.

    Example:
        >>> threat_sentence("plug-and-play")
        'The attacker has the weights and searches a generator for images of each class.'
    """
    if threat == tap and threat not in THREATS:
        return f"The attacker sees what the model puts out at '{tap}' and wants each private image back."
    return THREATS.get(threat, "What this threat means is not known to this version of sparseguard.")


def identification_sentence(sizes: dict[str, int]) -> str:
    """Return what id@1 was measured among, from the number of images by part.

    Example:
        >>> identification_sentence({"private": 2000, "test": 900})
        'id@1 among N = 2,000 private images (chance 0.0005), among N = 900 test images (chance 0.0011).'
        >>> identification_sentence({})
        'id@1 was not measured.'
    """
    if not sizes:
        return "id@1 was not measured."
    among = (f"among N = {size:,} {part} images (chance {chance(size)})" for part, size in sizes.items())
    return f"id@1 {', '.join(among)}."


def chance(size: int) -> str:
    """Return the chance level of id@1 among ``size`` images, to two digits that mean something.

    Example:
        >>> chance(2000)
        '0.0005'
    """
    return f"{1 / size:.2g}" if size > 0 else MISSING


def number(value: float | None, digits: int) -> str:
    """Return a number with fixed digits, or the words for a missing one.

    Example:
        >>> number(12.345, 1), number(None, 1)
        ('12.3', 'not available')
    """
    return MISSING if value is None else f"{value:.{digits}f}"


def gain(value: float | None, digits: int) -> str:
    """Return a difference with its sign.

    Example:
        >>> gain(1.0, 2), gain(-0.001, 2)
        ('+1.00', '+0.00')
    """
    return MISSING if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"


def interval(ends: tuple[float, float] | None, digits: int, signed: bool = False) -> str:
    """Return an interval in square brackets, nothing where there is none.

    Example:
        >>> interval((1.0, 2.5), 1), interval((-1.0, 2.5), 1, signed=True), interval(None, 1)
        ('[1.0, 2.5]', '[-1.0, +2.5]', '')
    """
    if ends is None:
        return ""
    words = [gain(end, digits) if signed else number(end, digits) for end in ends]
    return f"[{', '.join(words)}]"


def metric_of(name: str) -> Metric:
    """Return how a metric is printed; one that this version does not know has its own name and three digits.

    Example:
        >>> metric_of("psnr").unit, metric_of("evaluator accuracy (a network)").label
        ('dB', 'evaluator accuracy (a network)')
    """
    return METRICS.get(name, Metric(name, "", 3))
