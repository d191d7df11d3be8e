"""Knowledge, inputs and results of feature inversion attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparseguard.core.errors import TrainingError
from sparseguard.core.out_of_core import row_chunks
from sparseguard.types.datasets import Images, Labels


class Knowledge(StrEnum):
    """Knowledge of the attacker besides auxiliary data."""

    NOTHING = "nothing"
    LABEL = "label"
    BLACK_BOX = "black-box"
    GRAY_BOX = "gray-box"
    WHITE_BOX = "white-box"


FLOORS = (Knowledge.NOTHING, Knowledge.LABEL)


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """Features of a batch of images at one tap, one row an image.

    Raises:
        TrainingError: when a value is not finite.
    """

    features: Float[Tensor, "n ..."]
    tap: str

    def __post_init__(self) -> None:
        """Refuse values that are not finite."""
        if not all(torch.isfinite(self.features[some]).all() for some in row_chunks(self.features)):
            raise TrainingError(f"the tap '{self.tap}' released values that are not finite; the target is broken.")

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackInput:
    """One set of images to be reconstructed, as far as the attack knows it.

    Args:
        count: how many images.
        observation: their features; None for attacks without access to features.
        labels: their classes; None for attacks that do not know them.
        index: their indices ``(n,)`` in the split, where only some of it is attacked; None: all of it, in order.
    """

    count: int
    observation: Observation | None = None
    labels: Labels | None = None
    index: Int[Tensor, " n"] | None = None


AttackInputs = Mapping[str, AttackInput]
"""The sets of images to reconstruct, by the name of their split."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackResult:
    """Result of an attack.

    Args:
        reconstructions: split to ``(n, c, h, w)`` float32 in [0, 1].
        parameter_change: how far the attack's parameters moved from their start, relative to their size;
            None for an attack that has none.
        diagnostics: figures by name, such as ``penalty`` or ``epochs``; those that the record knows become its fields.
        curves: learning curves by name, e.g. ``auxiliary_val PSNR`` with a value after every epoch.
        residuals: split to ``(n,)``, the distance of each reconstruction's features to the observed ones, relative to
            the features' standard deviation; for attacks that compute it.
    """

    reconstructions: Mapping[str, Images]
    parameter_change: float | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    residuals: Mapping[str, Float[Tensor, " n"]] = field(default_factory=dict)


@runtime_checkable
class Released(Protocol):
    """A released model that can be evaluated up to a named stage."""

    def forward_to(self, images: Tensor, stage: str) -> Tensor:
        """Return the output of ``stage``."""
        ...
