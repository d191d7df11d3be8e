"""Checks that compare an attack with its controls, and attacks of different knowledge with each other."""

from __future__ import annotations

import math

from sparseguard.checks.evidence import Evidence, difference, join, psnr
from sparseguard.record import FeatureInversionAttack

FRACTION = 0.5
LOST = 0.3
"""dB. An attack that loses so much with half of its images is still limited by how many it has."""

AGREE = 0.5
"""Cosine. Gradients by two rules that are both right are nearly parallel; below this, one leads far from the other."""

RESIDUAL = 0.01
"""Of the features' standard deviation. A search that left so much unexplained has not come to its end."""

REACHED = 30.0
"""dB. An image this near is reached, whatever its features say."""


def shuffled_as_good(evidence: Evidence) -> str | None:
    """Compare attacks with their controls that learn from other images' features."""
    return join(
        difference(comparison)
        for comparison, control in evidence.compared("control")
        if control.conditions.control == "shuffled-features" and comparison.ci95[1] >= 0
    )


def more_data_helps(evidence: Evidence) -> str | None:
    """Compare attacks with their controls that have half of the images and differ in nothing else."""
    return join(
        f"{difference(comparison)}, more than {LOST} dB lost"
        for comparison, control in evidence.compared("control")
        if control.conditions.auxiliary_fraction == FRACTION
        and control.conditions.control == "none"
        and control.conditions.dataset is None
        and comparison.mean < -LOST
    )


def repeats_no_better(evidence: Evidence) -> str | None:
    """Compare attacks that send each image several times with those that send it once, where noise is added."""
    if not evidence.randomizes:
        return None
    return join(
        difference(comparison)
        for comparison, repeated in evidence.compared("knowledge")
        if repeated.knowledge == "black-box" and repeated.queries > 1 and comparison.ci95[0] <= 0
    )


def hidden_gradients(evidence: Evidence) -> str | None:
    """Compare attacks that have the weights with those that do not, and look for gradients of zero."""
    worse = [
        difference(comparison)
        for comparison, attack in evidence.compared("knowledge")
        if attack.knowledge == "white-box" and comparison.ci95[1] < 0
    ]
    zero = [
        f"{name}: gradients have norm 0"
        for name, diagnostics in evidence.gradient_diagnostics().items()
        if diagnostics.gradient_norm == 0
    ]
    return join([*worse, *zero])


def gradient_cosine_low(evidence: Evidence) -> str | None:
    """Compare gradients through the solver's steps with those of its solution; straight-through ones are biased."""
    cosines = {
        name: cosine
        for name, diagnostics in evidence.gradient_diagnostics().items()
        if (cosine := diagnostics.gradient_cosine_implicit) is not None
    }
    return join(
        f"{name}: cosine {cosine:.2f} between unrolled and implicit gradients, less than {AGREE}"
        for name, cosine in cosines.items()
        if cosine < AGREE
    )


def optimizer_stuck(evidence: Evidence) -> str | None:
    """Look for searches that reached neither the features nor the image."""
    messages = []
    for attack in evidence.white_box_attacks():
        if "private" not in attack.residuals:
            continue
        residual, reachable = attack.residuals["private"].quantiles[1], max(RESIDUAL, _noise(evidence, attack))
        if residual > reachable and psnr(attack) < REACHED:
            messages.append(
                f"{attack.name}: median residual {residual:.3f}, above {reachable:.3f}, and {psnr(attack):.2f} dB, "
                f"below {REACHED:.0f}"
            )
    return join(messages)


def _noise(evidence: Evidence, attack: FeatureInversionAttack) -> float:
    """Return the residual that noise leaves of the originals themselves; two observations differ by that of both."""
    return evidence.features.noise_ratio / math.sqrt(2 * attack.queries)
