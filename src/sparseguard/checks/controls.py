"""Checks that compare what should differ: an attack with its controls, and levels of knowledge with each other."""

from __future__ import annotations

import math

from sparseguard.checks.evidence import Evidence, difference, joined, psnr
from sparseguard.record import Attacker

SHARE = 0.5
LOST = 0.3
"""dB. An attack that loses so much with half of its images is still limited by how many it has."""

AGREE = 0.5
"""Cosine. Gradients by two rules that are both right are nearly parallel; below this, one leads far from the other."""

RESIDUAL = 0.01
"""Of the features' spread. A search that left so much of the features unexplained has not come to its end."""

FOUND = 30.0
"""dB. An image this near is found, whatever its features say."""


def shuffled_as_good(evidence: Evidence) -> str | None:
    """Compare attacks with their controls that learn from other images' features."""
    return joined(
        difference(comparison)
        for comparison, control in evidence.compared("control")
        if control.setting.get("control") == "shuffled-features" and comparison.ci95[1] >= 0
    )


def more_data_helps(evidence: Evidence) -> str | None:
    """Compare attacks with their controls that have half of the images and differ in nothing else."""
    return joined(
        f"{difference(comparison)}, more than {LOST} dB lost"
        for comparison, control in evidence.compared("control")
        if control.setting.get("share") == SHARE
        and control.setting.get("control") == "none"
        and control.setting.get("data") is None
        and comparison.mean < -LOST
    )


def repeats_no_better(evidence: Evidence) -> str | None:
    """Compare attackers that send each image several times with those that send it once, where noise is added."""
    if not evidence.randomizes:
        return None
    return joined(
        difference(comparison)
        for comparison, repeated in evidence.compared("level")
        if repeated.knowledge == "black-box" and repeated.setting.get("repeats", 1) > 1 and comparison.ci95[0] <= 0
    )


def hidden_gradients(evidence: Evidence) -> str | None:
    """Compare attackers that have the weights with those that do not, and look for gradients of zero."""
    worse = [
        difference(comparison)
        for comparison, attacker in evidence.compared("level")
        if attacker.knowledge == "white-box" and comparison.ci95[1] < 0
    ]
    zero = [
        f"{name}: gradients have norm 0"
        for name, notes in evidence.notes_of_white_boxes().items()
        if notes.get("gradient_norm") == 0
    ]
    return joined([*worse, *zero])


def gradient_cosine_low(evidence: Evidence) -> str | None:
    """Compare gradients through the solver's steps with those of its solution; straight-through ones are biased."""
    cosines = {
        name: notes.get("cosine unrolled, implicit", 1.0) for name, notes in evidence.notes_of_white_boxes().items()
    }
    return joined(
        f"{name}: cosine {cosine:.2f} between unrolled and implicit gradients, less than {AGREE}"
        for name, cosine in cosines.items()
        if cosine < AGREE
    )


def optimizer_stuck(evidence: Evidence) -> str | None:
    """Look for searches that reached neither the features nor the image."""
    found = []
    for attacker in evidence.white_boxes():
        if "private" not in attacker.residuals:
            continue
        residual, reachable = attacker.residuals["private"].quantiles[1], max(RESIDUAL, _noise(evidence, attacker))
        if residual > reachable and psnr(attacker) < FOUND:
            found.append(
                f"{attacker.name}: median residual {residual:.3f}, above {reachable:.3f}, and {psnr(attacker):.2f} dB, "
                f"below {FOUND:.0f}"
            )
    return joined(found)


def _noise(evidence: Evidence, attacker: Attacker) -> float:
    """Return the residual that noise leaves of the originals themselves; two observations differ by that of both."""
    repeats: int = attacker.setting.get("repeats", 1)
    return evidence.leaked.noise_ratio / math.sqrt(2 * repeats)
