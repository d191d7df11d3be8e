"""Checks of feature inversion: whether attacks learned all they could, and what their scores can mean."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sparseguard.checks.evidence import Evidence, join, late_gain, psnr

ROUNDING = 1e-6
"""In pixel values. Less than float32 can tell apart from 1 after a few operations."""

ABOVE_FLOOR = 0.1
"""dB. 2 % of the squared error: attacks this near the floor are ranked by chance."""

STILL_GAINING = 0.1
"""dB. A decoder that gained so much in a fifth of its epochs had not come to rest."""

APART = 0.2
"""dB. Smaller differences, however sure on many images, change no conclusion."""

APART_Z = 3.0
"""Standard errors: by chance once in 700 cases, so that a grid of some hundred raises hardly ever for nothing."""


def attack_did_not_learn(evidence: Evidence) -> str | None:
    """Look for attacks that ended with the parameters they started from."""
    still = [
        attack.name
        for attack in evidence.attacks
        if attack.parameter_change is not None and not attack.parameter_change > 0
    ]
    return f"parameters did not move: {', '.join(still)}" if still else None


def still_improving(evidence: Evidence) -> str | None:
    """Look at the end of the chosen attacks' learning curves."""
    gains = {attack.name: late_gain(attack.curves.auxiliary_val_psnr) for attack in evidence.chosen_attacks("psnr")}
    return join(
        f"{name}: gained {gain:.2f} dB on auxiliary_val in the last fifth of its epochs, more than {STILL_GAINING}"
        for name, gain in gains.items()
        if gain > STILL_GAINING
    )


def no_better_than_mean(evidence: Evidence) -> str | None:
    """Compare the chosen attacks with the mean image."""
    mean = evidence.reference("mean-image")
    if mean is None:
        return None
    return join(
        f"{attack.name}: {psnr(attack):.2f} dB, the mean image has {psnr(mean):.2f} dB"
        for attack in evidence.chosen_on_all_images("psnr")
        if psnr(attack) <= psnr(mean)
    )


def at_its_floor(evidence: Evidence) -> str | None:
    """Compare the chosen attacks with the best floor."""
    floors = {attack.name: psnr(attack) for attack in evidence.attacks if attack.floor}
    if not floors:
        return None
    best = max(floors, key=lambda name: floors[name])
    return join(
        f"{attack.name}: {psnr(attack):.2f} dB, less than {ABOVE_FLOOR} dB above {best} with {floors[best]:.2f} dB"
        for attack in evidence.chosen_on_all_images("psnr")
        if psnr(attack) < floors[best] + ABOVE_FLOOR
    )


def worse_than_ridge(evidence: Evidence) -> str | None:
    """Compare the chosen attacks with ridge on the outputs."""
    ridge = evidence.reference("ridge")
    if ridge is None:
        return None
    return join(
        f"{attack.name}: {psnr(attack):.2f} dB on private images, {ridge.name} has {psnr(ridge):.2f} dB"
        for attack in evidence.chosen_on_all_images("psnr")
        if psnr(attack) < psnr(ridge)
    )


def memorization(evidence: Evidence) -> str | None:
    """Look for chosen attacks that are better on private images than on test images, by Welch's z."""
    return join(_better_on(evidence, "private", "test"))


def unseen_leak_more(evidence: Evidence) -> str | None:
    """Look for chosen attacks that are better on test images than on private images, by Welch's z."""
    return join(_better_on(evidence, "test", "private"))


def _better_on(evidence: Evidence, better: str, worse: str) -> Iterator[str]:
    for attack in evidence.chosen_on_all_images("psnr"):
        if "test" not in attack.scores:
            continue
        high, low = attack.scores[better]["psnr"], attack.scores[worse]["psnr"]
        more = high.mean - low.mean
        error = math.sqrt(high.std**2 / high.n + low.std**2 / low.n)
        if more > APART and more > APART_Z * error:
            yield (
                f"{attack.name}: {high.mean:.2f} dB on {better} images, {low.mean:.2f} dB on {worse} images, "
                f"{more:.2f} dB more with a standard error of {error:.2f}"
            )


def out_of_range(evidence: Evidence) -> str | None:
    """Look for values that had to be clipped."""
    outside = {attack.name: attack.outside_range for attack in evidence.attacks if attack.outside_range > ROUNDING}
    return join(f"{name}: by up to {by:.3g}" for name, by in outside.items())


def not_finite(evidence: Evidence) -> str | None:
    """Look for scores that mean nothing."""
    bad = [
        f"{attack.name}: {split} {metric}"
        for attack in evidence.attacks
        for split, metrics in attack.scores.items()
        for metric, summary in metrics.items()
        if not math.isfinite(summary.mean)
    ]
    return f"not finite: {', '.join(bad)}" if bad else None
