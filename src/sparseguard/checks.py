"""Checks of the evaluation itself: what would make its numbers untrue."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sparseguard.record import Attacker, Comparison, Leaked, TargetFacts

REVISION = 1


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the checks look at.

    Args:
        target: facts of the target.
        leaked: facts of the tap.
        attackers: all attacks and floors of the case with their scores.
        chosen: level to metric to the attacker chosen on attacker_val.
        comparisons: attackers side by side.
        randomizes: whether the defense promises different answers to equal queries.
        inactive: why the defense is not at work, by its own account.
    """

    target: TargetFacts
    leaked: Leaked
    attackers: list[Attacker]
    chosen: dict[str, dict[str, str]]
    comparisons: list[Comparison]
    randomizes: bool
    inactive: str | None

    def named(self, name: str) -> Attacker | None:
        """Return the first attacker that is this piece, whatever its label, if one took part."""
        return next((attacker for attacker in self.attackers if attacker.settings["name"] == name), None)

    def picked(self, metric: str) -> list[Attacker]:
        """Return the attackers chosen for ``metric`` at each knowledge level."""
        names = {choice[metric] for choice in self.chosen.values() if metric in choice}
        return [attacker for attacker in self.attackers if attacker.name in names]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Args:
        raised_when: the condition, for the docs.
        meaning: what it means for the numbers, for the docs.
        find: from the evidence to a message, or None.
    """

    raised_when: str
    meaning: str
    find: Callable[[Evidence], str | None]


def _target_changed(evidence: Evidence) -> str | None:
    before, after = evidence.target.state_hash, evidence.target.state_hash_after
    return None if before == after else f"state {before[:12]} before the attacks, {after[:12]} after"


def _attacker_did_not_learn(evidence: Evidence) -> str | None:
    still = [a.name for a in evidence.attackers if a.parameter_change is not None and not a.parameter_change > 0]
    return f"parameters did not move: {', '.join(still)}" if still else None


def _no_better_than_mean(evidence: Evidence) -> str | None:
    mean = evidence.named("mean-image")
    if mean is None:
        return None
    floor = mean.scores["private"]["psnr"].mean
    for attacker in evidence.picked("psnr"):
        reached = attacker.scores["private"]["psnr"].mean
        if reached <= floor:
            return f"{attacker.name}: {reached:.2f} dB, the mean image has {floor:.2f} dB"
    return None


def _worse_than_ridge(evidence: Evidence) -> str | None:
    ridge = evidence.named("ridge")
    if ridge is None:
        return None
    base = ridge.scores["private"]["psnr"].mean
    for attacker in evidence.picked("psnr"):
        reached = attacker.scores["private"]["psnr"].mean
        if reached < base:
            return f"{attacker.name}: {reached:.2f} dB on private images, ridge has {base:.2f} dB"
    return None


def _defense_inactive(evidence: Evidence) -> str | None:
    if evidence.inactive is not None:
        return evidence.inactive
    if evidence.randomizes and evidence.leaked.noise_ratio == 0:
        return "two observations of the same images are equal, though the defense adds noise"
    return None


def _out_of_range(evidence: Evidence) -> str | None:
    outside = {a.name: a.outside_range for a in evidence.attackers if a.outside_range > 1e-6}
    return "; ".join(f"{name}: by up to {by:.3g}" for name, by in outside.items()) or None


def _not_finite(evidence: Evidence) -> str | None:
    bad = [
        f"{attacker.name}: {part} {metric}"
        for attacker in evidence.attackers
        for part, metrics in attacker.scores.items()
        for metric, summary in metrics.items()
        if not math.isfinite(summary.mean)
    ]
    return f"not finite: {', '.join(bad)}" if bad else None


def _target_at_majority(evidence: Evidence) -> str | None:
    accuracy, majority = evidence.target.accuracy, evidence.target.majority_rate
    if accuracy > majority:
        return None
    return f"accuracy {accuracy:.3f}, always answering the most frequent class reaches {majority:.3f}"


CHECKS: dict[str, Check] = {
    "target-changed": Check(
        raised_when="the hash of the target's parameters and buffers differs before and after the attacks",
        meaning="an attack wrote to the model; accuracy and leak belong to different models",
        find=_target_changed,
    ),
    "attacker-did-not-learn": Check(
        raised_when="an attacker that has parameters ended with the ones it started from",
        meaning="its reconstructions are those of an untrained network and say nothing about the defense",
        find=_attacker_did_not_learn,
    ),
    "no-better-than-mean": Check(
        raised_when="the chosen attacker's mean PSNR on private images is not above the mean image's",
        meaning="no leak was measured; either the defense is perfect or the attack failed, and the record cannot tell",
        find=_no_better_than_mean,
    ),
    "worse-than-ridge": Check(
        raised_when="the attacker chosen for PSNR is below ridge on the private images",
        meaning="the choice on attacker_val did not carry over; the row understates the leak",
        find=_worse_than_ridge,
    ),
    "defense-inactive": Check(
        raised_when="a defense that adds noise gave the same answer twice, or its stages are not at work",
        meaning="the attack was run against an undefended model",
        find=_defense_inactive,
    ),
    "out-of-range": Check(
        raised_when="an attack returned values outside [0, 1]",
        meaning="they were clipped before scoring; the attack should bound its output itself",
        find=_out_of_range,
    ),
    "not-finite": Check(
        raised_when="a score is not finite",
        meaning="the score means nothing",
        find=_not_finite,
    ),
    "target-at-majority": Check(
        raised_when="the target is not more accurate than always answering the most frequent class of test",
        meaning="the target learned nothing; a model that knows nothing is easy to defend",
        find=_target_at_majority,
    ),
}


def raised(evidence: Evidence) -> dict[str, str]:
    """Return the message of every check that raises, by its name."""
    found = {name: check.find(evidence) for name, check in CHECKS.items()}
    return {name: message for name, message in found.items() if message is not None}
