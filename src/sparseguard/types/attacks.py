"""What an attack on single images knows, is given, and returns."""

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
    """What an attack is given besides the attacker's own images."""

    NOTHING = "nothing"
    LABEL = "label"
    BLACK_BOX = "black-box"
    GRAY_BOX = "gray-box"
    WHITE_BOX = "white-box"


FLOORS = (Knowledge.NOTHING, Knowledge.LABEL)


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """What one tap released for a batch of images, one row an image.

    Raises:
        TrainingError: when a value is not finite; a target that emits those protects nobody, it is broken.
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
    """One set of images to be reconstructed, as far as the attack may know it.

    Args:
        count: how many images.
        observation: what leaked of them; None for attacks that see no leak.
        labels: their classes; None for attacks that are not told.
        index: their places ``(n,)`` in the part, where only some of it is attacked; None: all of it, in order.
    """

    count: int
    observation: Observation | None = None
    labels: Labels | None = None
    index: Int[Tensor, " n"] | None = None


AttackInputs = Mapping[str, AttackInput]
"""Instance reconstruction: the sets to reconstruct, by the name of their part."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackResult:
    """What an attack returns.

    Args:
        reconstructions: per part of the goal ``(n, c, h, w)`` float32.
        parameter_change: how far the attacker's own parameters moved from their start, relative to their size;
            None for an attacker that has none.
        notes: figures worth keeping (chosen regularization, epochs, validation error).
        curves: learning curves by what they show, e.g. the PSNR on auxiliary_val after every epoch.
        residuals: per part ``(n,)``, how far the features of each reconstruction are from what leaked, relative to the
            spread of the features; for attacks that can compute it.
    """

    reconstructions: Mapping[str, Images]
    parameter_change: float | None = None
    notes: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    residuals: Mapping[str, Float[Tensor, " n"]] = field(default_factory=dict)


@runtime_checkable
class Released(Protocol):
    """A released model that can be evaluated up to a named stage."""

    def forward_to(self, images: Tensor, stage: str) -> Tensor:
        """Return the output of ``stage``."""
        ...
