"""Interface of backbones, and builders that they share.

Every dense layer's stage ends with its raw output; the nonlinearity opens the next stage. A tap on the stage is the
tensor before the nonlinearity, and ``<tap>.relu`` the tensor after it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from sparseguard.core.staged_model import Blueprint, Builder, Shape, Stage


class Scale(nn.Module):
    """Map images from [0, 1] to [-1, 1]; normalization is part of the model."""

    def forward(self, images: Tensor) -> Tensor:
        """Return ``2 x - 1``."""
        return images * 2 - 1


class Backbone(ABC):
    """Settings of a model without defense, and its blueprint."""

    revision: ClassVar[int]
    summary: ClassVar[str]

    def upstream(self) -> str:
        """Return the SHA-256 of the weights it starts from; empty where it starts from random ones."""
        return ""

    @abstractmethod
    def blueprint(self, classes: int) -> Blueprint:
        """Return the stages of a classifier for ``classes`` classes, the first of them an empty ``stem``."""


def build_dense(width: int) -> Builder:
    """Return a builder of a dense layer on the flattened input."""

    def build(shape: Shape) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width))

    return build


def build_plain(module: type[nn.Module]) -> Builder:
    """Return a builder of a module that does not depend on its input shape."""
    return lambda _: module()


def make_dense_stages(width: int, *names: str) -> tuple[Stage, ...]:
    """Return, for each of ``names``, a stage of a dense layer and one of the ReLU after it."""
    return tuple(
        stage
        for name in names
        for stage in (Stage(name, build_dense(width)), Stage(f"{name}_relu", build_plain(nn.ReLU)))
    )


DENSE_TAPS = {
    "first_linear": "first",
    "first_linear.relu": "first_relu",
    "last_hidden": "last",
    "last_hidden.relu": "last_relu",
    "logits": "head",
}
"""Taps of a model whose first and last dense layers are the stages ``first`` and ``last``."""
