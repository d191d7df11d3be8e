"""The undefended models, as blueprints of named stages.

Every dense layer's stage ends with its raw output; the nonlinearity opens the next stage, so a tap on a stage is the
tensor before the nonlinearity, and ``<tap>.relu`` the one after it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.staged_model import Blueprint, Builder, Shape, Stage


class Scale(nn.Module):
    """Map images from [0, 1] to [-1, 1], so that normalization is part of the model."""

    def forward(self, images: Tensor) -> Tensor:
        """Return ``2 x - 1``."""
        return images * 2 - 1


class Backbone(ABC):
    """Settings of a model without defense."""

    revision: ClassVar[int]
    summary: ClassVar[str]

    def upstream(self) -> str:
        """Return the SHA-256 of the weights it starts from; empty where it starts from random ones."""
        return ""

    @abstractmethod
    def blueprint(self, classes: int) -> Blueprint:
        """Return the stages of a classifier for ``classes`` classes, the first of them an empty ``stem``."""


def dense(width: int) -> Builder:
    """Return a builder of a dense layer on the flattened input."""

    def build(shape: Shape) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width))

    return build


def plain(module: type[nn.Module]) -> Builder:
    """Return a builder of a module that is the same for every input."""
    return lambda _: module()


def dense_stages(width: int, *names: str) -> tuple[Stage, ...]:
    """Return a stage for each dense layer named, and one for the ReLU after it."""
    return tuple(
        stage for name in names for stage in (Stage(name, dense(width)), Stage(f"{name}_relu", plain(nn.ReLU)))
    )


DENSE_TAPS = {
    "first_linear": "first",
    "first_linear.relu": "first_relu",
    "last_hidden": "last",
    "last_hidden.relu": "last_relu",
    "logits": "head",
}
"""Taps of a model whose first and last dense layers are the stages ``first`` and ``last``."""


@settings
class Linear(Backbone):
    """Three dense layers and a head: Linear, ReLU, Linear, ReLU, Linear, ReLU, Linear.

    Taps: ``first_linear`` (output of the first dense layer), ``last_hidden`` (of the third), ``.relu`` of both, and
    ``logits``.

    Source: the "linear networks" of the paper, section 4; layer sizes are ours (design, section 5).
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "three dense layers and a head; taps first_linear, last_hidden, logits"
    width: Annotated[int, Field(ge=1)] = 500

    def blueprint(self, classes: int) -> Blueprint:
        """Return the stages."""
        return Blueprint(
            stages=(
                Stage("input", plain(Scale)),
                Stage("stem", plain(nn.Identity)),
                *dense_stages(self.width, "first", "hidden", "last"),
                Stage("head", dense(classes)),
            ),
            taps=DENSE_TAPS,
        )


@settings
class LinearShallow(Backbone):
    """One dense layer and a head: Linear, ReLU, Linear. Taps: ``first_linear``, ``first_linear.relu``, ``logits``.

    Source: the paper's split setting uses fewer linear layers (section 4); here all defenses alike do.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "one dense layer and a head; taps first_linear, logits"
    width: Annotated[int, Field(ge=1)] = 500

    def blueprint(self, classes: int) -> Blueprint:
        """Return the stages."""
        return Blueprint(
            stages=(
                Stage("input", plain(Scale)),
                Stage("stem", plain(nn.Identity)),
                *dense_stages(self.width, "first"),
                Stage("head", dense(classes)),
            ),
            taps={"first_linear": "first", "first_linear.relu": "first_relu", "logits": "head"},
        )
