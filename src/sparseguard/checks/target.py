"""Checks of the target, its defense, and the images it was trained on."""

from __future__ import annotations

import math

from sparseguard.checks.evidence import Evidence, late_gain

SAME = 1e-5
"""Of the features' standard deviation. Answers that differ by less differ by rounding."""

TARGET_GAIN = 0.01
"""Fraction of held-out images. An accuracy that still rises by a point in the last fifth of the epochs rises further;
on few images it must rise by more than its standard error."""


def target_changed(evidence: Evidence) -> str | None:
    """Compare the target's hashes."""
    before, after = evidence.target.state_hash, evidence.target.state_hash_after
    return None if before == after else f"state {before[:12]} before the attacks, {after[:12]} after"


def target_at_majority(evidence: Evidence) -> str | None:
    """Compare the target with one that always answers the same."""
    accuracy, majority = evidence.target.accuracy, evidence.target.majority_rate
    if accuracy > majority:
        return None
    return f"accuracy {accuracy:.3f}, always answering the most frequent class reaches {majority:.3f}"


def target_not_converged(evidence: Evidence) -> str | None:
    """Look at the end of the target's training; before it, the target knows as much as the most frequent class."""
    accuracies = evidence.target.history.held_out_accuracy
    gain = late_gain([evidence.target.majority_rate, *accuracies])
    best, n = max(accuracies, default=0.0), evidence.target.held_out_n
    least = max(TARGET_GAIN, math.sqrt(best * (1 - best) / n) if n else 0.0)
    if not gain > least:
        return None
    return (
        f"held-out accuracy rose by {gain:.3f} to {best:.3f} in the last fifth "
        f"of {len(accuracies)} epochs (or the last one), more than {least:.3f}"
    )


def defense_inactive(evidence: Evidence) -> str | None:
    """Ask the defense, and compare two answers of one that adds noise."""
    if evidence.inactive is not None:
        return evidence.inactive
    if evidence.randomizes and evidence.features.noise_ratio < SAME:
        return "two observations of the same images are equal, though the defense adds noise"
    return None


def duplicates_across_splits(evidence: Evidence) -> str | None:
    """Look for private images in other splits."""
    shared = ", ".join(f"{count} in {split}" for split, count in evidence.duplicates.items())
    return f"private images that are also in another part: {shared}" if shared else None
