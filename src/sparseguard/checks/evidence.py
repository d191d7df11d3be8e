"""Evidence of a case: target, features, attacks, comparisons; and the shape of a check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sparseguard.record import (
    Choice,
    ClassInversionAttack,
    Comparison,
    EvaluatorFacts,
    FeatureFacts,
    FeatureInversionAttack,
    GradientDiagnostics,
    TargetFacts,
)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All of a case that bears on whether its numbers are true.

    Args:
        target: facts of the target.
        features: facts of the features at the tap.
        attacks: all feature inversion attacks and floors of the case with their scores.
        chosen: the attacks chosen on auxiliary_val.
        comparisons: pairs of attacks on the same images.
        randomizes: whether the defense promises different answers to equal queries.
        inactive: why the defense is not active, as the defense reports; None where it is.
        duplicates: split to how many private images it holds too; only splits with any.
        class_attacks: class inversion attacks with their scores, controls included.
        evaluators: the networks that score class inversion.
    """

    target: TargetFacts
    features: FeatureFacts
    attacks: Sequence[FeatureInversionAttack]
    chosen: Sequence[Choice]
    comparisons: Sequence[Comparison]
    randomizes: bool
    inactive: str | None
    duplicates: Mapping[str, int]
    class_attacks: Sequence[ClassInversionAttack] = ()
    evaluators: Mapping[str, EvaluatorFacts] = field(default_factory=dict)

    def reference(self, name: str) -> FeatureInversionAttack | None:
        """Return the first attack that is this component, on all images, each sent once, and is no control."""
        for attack in self.attacks:
            plain = not attack.control and attack.queries == 1
            if attack.attack == name and plain and not attack.indices:
                return attack
        return None

    def chosen_attacks(self, metric: str) -> list[FeatureInversionAttack]:
        """Return the attacks chosen for ``metric``."""
        names = {choice.attack for choice in self.chosen if choice.metric == metric}
        return [attack for attack in self.attacks if attack.name in names]

    def chosen_on_all_images(self, metric: str) -> list[FeatureInversionAttack]:
        """Return the chosen attacks that attacked all images, as floors do; means of others are of other images."""
        return [attack for attack in self.chosen_attacks(metric) if not attack.indices]

    def white_box_attacks(self) -> list[FeatureInversionAttack]:
        """Return the feature inversion attacks that have the weights and may be chosen."""
        return [attack for attack in self.attacks if attack.knowledge == "white-box" and attack.eligible]

    def class_inversions(self) -> list[ClassInversionAttack]:
        """Return the class inversion attacks that are no controls."""
        return [attack for attack in self.class_attacks if not attack.control]

    def gradient_diagnostics(self) -> dict[str, GradientDiagnostics]:
        """Return the diagnostics of all attacks that have the weights, by name."""
        of_images = {attack.name: attack.diagnostics for attack in self.white_box_attacks()}
        of_classes = {
            attack.name: attack.diagnostics for attack in self.class_attacks if attack.knowledge == "white-box"
        }
        return {**of_images, **of_classes}

    def compared(self, kind: Literal["knowledge", "control"]) -> list[tuple[Comparison, FeatureInversionAttack]]:
        """Return the comparisons of this kind by PSNR on private images, each with its first attack."""
        attacks = {attack.name: attack for attack in self.attacks}
        return [
            (comparison, attacks[comparison.first])
            for comparison in self.comparisons
            if (comparison.kind, comparison.metric, comparison.split) == (kind, "psnr", "private")
        ]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Args:
        raised_when: the condition, for the docs.
        meaning: what it means for the numbers, for the docs.
        find: from the evidence to a message; None where the check does not raise.
    """

    raised_when: str
    meaning: str
    find: Callable[[Evidence], str | None]


def psnr(attack: FeatureInversionAttack, split: str = "private") -> float:
    """Return an attack's mean PSNR in dB."""
    return attack.scores[split]["psnr"].mean


def difference(comparison: Comparison) -> str:
    """Return a comparison in words."""
    low, high = comparison.ci95
    return (
        f"{comparison.first} minus {comparison.second}: {comparison.mean:+.2f} dB "
        f"(95 %: {low:+.2f} to {high:+.2f}, {comparison.n} images)"
    )


def late_gain(curve: Sequence[float]) -> float:
    """Return how far the best value so far rose in the last fifth of the epochs, at least one.

    Args:
        curve: the value before training and after every epoch.

    Example:
        >>> late_gain([0.0, 1.0, 3.0, 2.0, 4.0, 4.5])
        0.5
        >>> late_gain([0.0, 1.0, 3.0, 2.0, 2.0, 2.0])
        0.0
    """
    if len(curve) < 2:
        return 0.0
    last = max(1, (len(curve) - 1) // 5)
    return max(curve) - max(curve[:-last])


def join(messages: Iterable[str]) -> str | None:
    """Return messages as one; None where there are none."""
    return "; ".join(messages) or None
