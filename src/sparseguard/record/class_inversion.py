"""Outcome of class inversion: the attacks, what they made of each class, scores beside those of other images."""

from __future__ import annotations

from typing import Literal

import pydantic

from sparseguard.record._model import (
    GradientDiagnostics,
    Hyperparameters,
    Knowledge,
    MetricDescription,
    Model,
    PriorFacts,
)


class ClassScore(Model):
    """One score of an attack's images, beside the same rule applied to other images.

    ``chance``: as many samples of the prior, without an attack. ``other_class``: the attack's images of another class.
    ``starts``: as many candidates, those with the highest confidence of the target before the search.
    ``all_optimized``: all that were optimized, before selection. ``unseen``: never-seen images in place of private
    ones. ``shuffled_patches``: images of no class.
    """

    value: float | None = None
    reason: str | None = pydantic.Field(default=None, description="why there is no value")
    ci95: tuple[float, float] | None = pydantic.Field(default=None, description="95 % interval; see docs/metrics.md")
    n: int
    chance: float | None = None
    other_class: float | None = None
    starts: float | None = None
    all_optimized: float | None = None
    unseen: float | None = None
    shuffled_patches: float | None = None


class AttackedClass(Model):
    """An attack's images of one class as the target sees them: means over the selected images."""

    confidence: float
    augmented_confidence: float = pydantic.Field(description="over random crops and mirrorings")
    start_confidence: float = pydantic.Field(description="of the images the searches started from")
    best_confidence: float = pydantic.Field(description="of the best of these images")
    best_start_confidence: float = pydantic.Field(description="of the best candidate")
    attack_accuracy: dict[str, float] = pydantic.Field(default={}, description="evaluator -> attack accuracy @1")


class ClassInversionDiagnostics(GradientDiagnostics):
    """Figures of a search; null where the attack does not compute one."""

    learning_rate: float | None = pydantic.Field(default=None, description="chosen step size of the search")
    clamped_fraction: float | None = pydantic.Field(
        default=None, description="fraction of the images whose loss is at its clamp"
    )
    diversity: float | None = pydantic.Field(
        default=None, description="mean distance between images of a class, relative to private ones"
    )
    samples_far_from_private: float | None = pydantic.Field(
        default=None, description="fraction of the prior's samples far from all private images"
    )
    samples_far_from_auxiliary: float | None = pydantic.Field(
        default=None, description="fraction of the prior's samples far from all auxiliary images"
    )


class EvaluatorAgreement(Model):
    """How far the two evaluators agree on which images are of their class."""

    fraction: float
    kappa: float | None = pydantic.Field(default=None, description="Cohen's kappa; null where it is not defined")


class ClassInversionAttack(Model):
    """One attack that makes images of whole classes."""

    name: str = pydantic.Field(description="label in the recipe")
    attack: str = pydantic.Field(description="name of the component")
    hyperparameters: Hyperparameters = pydantic.Field(default={})
    knowledge: Knowledge
    control: bool = pydantic.Field(description="whether it checks the evaluators and is no attack on privacy")
    prior: PriorFacts | None = None
    classes: dict[str, AttackedClass]
    scores: dict[str, ClassScore] = pydantic.Field(description="metric -> score")
    agreement: EvaluatorAgreement | None = None
    diagnostics: ClassInversionDiagnostics = ClassInversionDiagnostics()
    loss_curves: dict[str, list[float]] = pydantic.Field(default={}, description="loss -> mean after every step")


class ClassInversionOutcome(Model):
    """Class inversion: attacks that make images of whole classes."""

    kind: Literal["class-inversion"]
    metrics: dict[str, MetricDescription] = pydantic.Field(description="every metric of this outcome")
    classes: list[str] = pydantic.Field(description="the attacked classes")
    pool: int = pydantic.Field(description="private images, and as many never-seen ones, of each class")
    pairing: str = pydantic.Field(description="rule by which an image is compared with a private one")
    attacks: list[ClassInversionAttack]

    def attack(self, name: str) -> ClassInversionAttack:
        """Return the attack called ``name``.

        Raises:
            KeyError: when there is none.
        """
        return {attack.name: attack for attack in self.attacks}[name]
