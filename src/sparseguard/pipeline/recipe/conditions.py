"""Conditions of an attack: queries, auxiliary data and controls."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
import torch
from pydantic import Field
from torch import Tensor

from sparseguard.core.config import settings

REVISION = 1
"""Of how attacks run under their conditions: this file and the tasks that observe and attack."""

Control = Literal["none", "shuffled-features", "untrained-target"]


@settings
class Conditions:
    """Conditions an attack runs under. An attack under other than the default ones may be a control.

    Args:
        queries: number of times each image is sent, in learning and when attacked; the attack sees the mean of the
            outputs. Attacks are chosen separately for each number. Skipped for targets whose outputs for equal
            images are equal.
        control: ``shuffled-features`` pairs each auxiliary image with the features of another one;
            ``untrained-target`` attacks the target as it was before training.
        auxiliary_fraction: fraction of the auxiliary data that the attack learns from.
        known_private: fraction of the private images that the attacker has and knows to be private; the others are
            attacked.
        dataset: name of another data set, whose auxiliary data replace those of the recipe's data set.
        path: folder or file of that data set.
        max_images: number of images of each split that are attacked, the same ones in every case; absent: the
            attack's default.
    """

    queries: Annotated[int, Field(ge=1)] = 1
    control: Control = "none"
    auxiliary_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    known_private: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dataset: str | None = None
    path: str | None = None
    max_images: Annotated[int, Field(ge=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _is_consistent(self) -> Conditions:
        if self.path is not None and self.dataset is None:
            raise ValueError("path belongs to a data set; name it by dataset")
        if self.dataset is not None and self.known_private:
            raise ValueError("known_private adds to the recipe's own auxiliary data; leave out dataset")
        return self

    @property
    def eligible(self) -> bool:
        """Whether an attack under these conditions can be chosen; a control cannot."""
        return (
            self.control == "none" and self.auxiliary_fraction == 1 and self.known_private == 0 and self.dataset is None
        )


def select_attacked(count: int, max_images: int | None, known: float = 0.0) -> Tensor | None:
    """Return the indices of the attacked images of a split of ``count`` images; None for all of them.

    A smaller ``max_images`` gives a subset of a larger one's. The fraction ``known`` to the attacker is left out.
    """
    attacked = min(count - int(known * count), count if max_images is None else max_images)
    return None if attacked == count else _shuffle(count)[:attacked].sort().values


def select_known(count: int, known: float) -> Tensor:
    """Return the indices of the ``count`` private images that an attacker has who knows the fraction ``known``."""
    return _shuffle(count)[count - int(known * count) :].sort().values


def _shuffle(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))
