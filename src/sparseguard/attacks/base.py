"""Contracts of attacks: the author writes `run`, the library owns the call around it and its checks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from sparseguard.attacks.access import ModelAccess
from sparseguard.core.errors import SparseguardError, TrainingError
from sparseguard.core.progress import Progress
from sparseguard.generators import Prior
from sparseguard.types import (
    AttackInput,
    AttackInputs,
    AttackResult,
    AuxiliaryData,
    ClassResult,
    Images,
    Knowledge,
    TargetClasses,
)


class NotApplicable(SparseguardError):  # noqa: N818 - a reason, not a mistake
    """An attack has nothing to offer against this target; the message says why."""


class AttackSettings(ABC):
    """Facts that every attack states, and the prior it needs."""

    revision: ClassVar[int]
    summary: ClassVar[str]
    source: ClassVar[str]
    knowledge: ClassVar[Knowledge]

    def prior_source(self) -> str | None:
        """Return name or folder of the prior the attack needs; None if it needs none."""
        return None

    def trusts_prior(self) -> bool:
        """Return whether Python that the prior's folder names may be run."""
        return False


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackContext:
    """Resources of a feature inversion besides its access to the target.

    Args:
        auxiliary: the attacker's own images.
        seed: of the attack's own randomness.
        device: where to train.
        progress: where the attack reports how far it is.
        label: its name in `progress`.
        earlier: by level of knowledge, the reconstructions by that earlier attack which was best on auxiliary_val; of
            attacks that know no more.
        prior: the generator its settings name; None where they name none.
    """

    auxiliary: AuxiliaryData
    seed: int
    device: torch.device
    progress: Progress
    label: str
    earlier: Mapping[str, Mapping[str, Images]] = field(default_factory=dict)
    prior: Prior | None = None


class Attack(AttackSettings):
    """Settings of a feature inversion: reconstruct each image from its features at the tap."""

    floor: ClassVar[bool] = False
    """Whether it is a floor: what anybody could do without inverting features."""

    max_images: ClassVar[int | None] = None
    """How many images of each split it attacks, unless a recipe says otherwise; None for all."""

    learns_from_features: ClassVar[bool] = True
    """Whether its result depends on the features of the attacker's own images, as a control supposes."""

    starts_from_earlier: ClassVar[bool] = False
    """Whether it uses the reconstructions of attacks before it in the recipe."""

    @abstractmethod
    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:
        """Reconstruct the images of every split.

        Raises:
            NotApplicable: when there is nothing it could do against this target that others do not.
        """

    @final
    def __call__(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> tuple[AttackResult, float]:
        """Run the attack; return its result clipped to [0, 1], and how far outside the furthest value was.

        Raises:
            TrainingError: when a reconstruction is not finite or has a wrong shape; neither is ever scored.
        """
        result = self.run(access, inputs, context)
        size = context.auxiliary.train.shape
        outside = 0.0
        clipped = {}
        for split, attacked in inputs.items():
            images = result.reconstructions.get(split)
            if images is None or images.shape != (attacked.count, *size):
                shape = None if images is None else tuple(images.shape)
                raise TrainingError(f"{context.label}: '{split}' needs {(attacked.count, *size)} images, got {shape}.")
            if not torch.isfinite(images).all():
                raise TrainingError(f"{context.label}: reconstructions of '{split}' are not finite.")
            outside = max(outside, float((images - images.clamp(0, 1)).abs().max()))
            clipped[split] = images.clamp(0, 1)
        return replace(result, reconstructions=clipped), outside


def require_features(inputs: AttackInputs) -> dict[str, Tensor]:
    """Return the features of each split, ``(n, *tap)``.

    Raises:
        TrainingError: when a split comes without any.
    """
    features = {}
    for split, attacked in inputs.items():
        if attacked.observation is None:
            raise TrainingError(f"the attack needs an observation of '{split}'.")
        features[split] = attacked.observation.features
    return features


def flatten_features(inputs: AttackInputs) -> dict[str, Tensor]:
    """Return the features of each split, ``(n, d)``."""
    return {split: features.flatten(1) for split, features in require_features(inputs).items()}


def validation_images(attacked: AttackInput, context: AttackContext) -> Images:
    """Return the originals of the attacked images of auxiliary_val, which the attacker has."""
    val = context.auxiliary.val
    return val.images if attacked.index is None else val.batch(attacked.index)


@runtime_checkable
class PartialResults(Protocol):
    """Storage of finished parts of an attack, from which it resumes after an interruption."""

    def load(self, name: str) -> dict[str, Tensor] | None:
        """Return the tensors saved under ``name``, or None."""
        ...

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Store tensors under ``name``."""
        ...


class NoPartialResults:
    """Storage that stores nothing: an interrupted attack starts anew."""

    def load(self, name: str) -> dict[str, Tensor] | None:  # noqa: ARG002
        """Return None."""
        return None

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassContext:
    """Resources of a class inversion besides its access to the target.

    Args:
        prior: the generator its settings name; None where they name none.
        seed: of the attack's own randomness.
        device: where to compute.
        progress: where the attack reports how far it is.
        label: its name in `progress`.
        partial_results: where finished classes are stored.
    """

    prior: Prior | None
    seed: int
    device: torch.device
    progress: Progress
    label: str
    partial_results: PartialResults


class ClassAttack(AttackSettings):
    """Settings of a class inversion: make images that belong to each target class."""

    control: ClassVar[bool] = False
    """Whether it is no attack on privacy but a check of evaluators, which must not take its images for real."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings that go together, by name."""

    def check(self, prior: Prior | None) -> None:
        """Refuse, before anything is run, settings that do not fit the prior.

        Raises:
            RecipeError: naming the setting.
        """

    def sample_prior(
        self,
        count: int,  # noqa: ARG002
        classes: TargetClasses,  # noqa: ARG002
        prior: Prior | None,  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> Images | None:
        """Return ``(count, c, h, w)`` images in [0, 1] from the attack's prior, without a target; None without one."""
        return None

    @abstractmethod
    def run(self, access: ModelAccess, classes: TargetClasses, context: ClassContext) -> ClassResult:
        """Make images of every target class."""

    @final
    def __call__(self, access: ModelAccess, classes: TargetClasses, context: ClassContext) -> ClassResult:
        """Run the attack and return its result, images clipped to [0, 1].

        Raises:
            TrainingError: when an image is not finite, has a wrong shape, or a class has none selected.
        """
        self.check(context.prior)
        result = self.run(access, classes, context)
        figures = [*result.diagnostics.values(), *(value for curve in result.curves.values() for value in curve)]
        scores = torch.cat([result.confidence, result.steady_confidence, result.start_confidence])
        if not (torch.isfinite(scores).all() and all(math.isfinite(figure) for figure in figures)):
            raise TrainingError(f"{context.label}: a confidence, note or curve is not finite.")
        for images in (result.images, result.starts):
            if images.shape[1:] != classes.shape or not torch.isfinite(images).all():
                raise TrainingError(
                    f"{context.label}: needs finite images of {classes.shape}, got {tuple(images.shape[1:])}."
                )
        missing = set(classes.indices) - set(result.labels[result.selected].tolist())
        if missing:
            raise TrainingError(f"{context.label}: made nothing for the classes {sorted(missing)}.")
        return replace(result, images=result.images.clamp(0, 1), starts=result.starts.clamp(0, 1))
