"""What a class-level attack is: the author writes `run`, the library owns the call around it and its checks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import torch
from torch import Tensor

from sparseguard.attacks.access import Leak
from sparseguard.core.errors import TrainingError
from sparseguard.core.progress import Progress
from sparseguard.generators import Prior
from sparseguard.types import Classes, ClassResult, Images, Knowledge


@runtime_checkable
class Kept(Protocol):
    """Where an attack keeps what it has finished, so that it goes on there after an interruption."""

    def load(self, name: str) -> dict[str, Tensor] | None:
        """Return what was saved under ``name``, or None."""
        ...

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under ``name``."""
        ...


class NothingKept:
    """Keeps nothing: an interrupted attack starts anew."""

    def load(self, name: str) -> dict[str, Tensor] | None:  # noqa: ARG002
        """Return None."""
        return None

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassContext:
    """What every class-level attack is given besides the leak.

    Args:
        prior: the generator its settings name; None where they name none.
        seed: of the attack's own randomness.
        device: where to compute.
        progress: told how far it is.
        label: its name in `progress`.
        kept: where finished classes are kept.
    """

    prior: Prior | None
    seed: int
    device: torch.device
    progress: Progress
    label: str
    kept: Kept


class ClassAttack(ABC):
    """Settings of an attack on classes: make images that belong to each wanted class."""

    revision: ClassVar[int]
    summary: ClassVar[str]
    source: ClassVar[str]
    knowledge: ClassVar[Knowledge]
    control: ClassVar[bool] = False
    """Whether it is no attack on privacy but a check of evaluators, which must not take its images for real."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings that go together, by name."""

    def prior_source(self) -> str | None:
        """Return name or folder of the prior it is to be given; None if it needs none."""
        return None

    def trusts_prior(self) -> bool:
        """Return whether Python that the prior's folder names may be run."""
        return False

    def check(self, prior: Prior | None) -> None:  # noqa: B027
        """Refuse, before anything is run, what does not fit the prior it is given.

        Raises:
            RecipeError: saying which setting.
        """

    def unattacked(self, count: int, goal: Classes, prior: Prior | None, seed: int) -> Images | None:  # noqa: ARG002
        """Return ``(count, c, h, w)`` images in [0, 1] made as the attack makes them, but of no target, if it can."""
        return None

    @abstractmethod
    def run(self, leak: Leak, goal: Classes, context: ClassContext) -> ClassResult:
        """Make images of every wanted class."""

    @final
    def __call__(self, leak: Leak, goal: Classes, context: ClassContext) -> ClassResult:
        """Run the attack and return its result, images clipped to [0, 1].

        Raises:
            TrainingError: when an image is not finite, has a wrong shape, or a class has none selected.
        """
        self.check(context.prior)
        result = self.run(leak, goal, context)
        figures = [*result.notes.values(), *(value for curve in result.curves.values() for value in curve)]
        scores = torch.cat([result.confidence, result.steady_confidence, result.start_confidence])
        if not (torch.isfinite(scores).all() and all(math.isfinite(figure) for figure in figures)):
            raise TrainingError(f"{context.label}: a confidence, note or curve is not finite.")
        for images in (result.images, result.starts):
            if images.shape[1:] != goal.shape or not torch.isfinite(images).all():
                raise TrainingError(
                    f"{context.label}: needs finite images of {goal.shape}, got {tuple(images.shape[1:])}."
                )
        without = set(goal.wanted) - set(result.labels[result.selected].tolist())
        if without:
            raise TrainingError(f"{context.label}: made nothing for the classes {sorted(without)}.")
        return replace(result, images=result.images.clamp(0, 1), starts=result.starts.clamp(0, 1))
