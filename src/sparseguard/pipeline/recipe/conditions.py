"""Under which circumstances an attack is run: how often it may ask, what it learns from, whether it is a control."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
import torch
from pydantic import Field
from torch import Tensor

from sparseguard.core.config import settings

REVISION = 1
"""Of how attacks are run under their settings: this file, `attacking` and `observed`."""

Control = Literal["none", "shuffled-features", "untrained-target"]


@settings
class Setting:
    """What surrounds an attack. An attack whose setting is not the plain one stands beside the others as a control.

    Args:
        repeats: how often each image is sent, in learning and when attacked; the mean of the answers is what is seen.
            Attackers are chosen apart for each number of repeats. Not run on targets that answer equal queries
            equally.
        control: ``shuffled-features`` gives every attacker image another one's features to learn from;
            ``untrained-target`` attacks the target as it was before training.
        share: how much of the attacker's images it may learn from.
        known_private: share of the private images that the attacker has too, knowing that they are; the others are
            attacked. Says whether what training did to private images' features misleads an attacker who has none.
        data: name of another data set, whose attacker-side images it has instead.
        path: where that set lies, if it has to be told.
        images: of every part, only so many are attacked, the same ones in every case. None: as many as the attack
            takes by default.
    """

    repeats: Annotated[int, Field(ge=1)] = 1
    control: Control = "none"
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    known_private: Annotated[float, Field(ge=0, lt=1)] = 0.0
    data: str | None = None
    path: str | None = None
    images: Annotated[int, Field(ge=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Setting:
        if self.path is not None and self.data is None:
            raise ValueError("path says where data lies; name the data set")
        if self.data is not None and self.known_private:
            raise ValueError("known_private adds to the attacker's own images; leave out data")
        return self

    @property
    def competes(self) -> bool:
        """Whether an attack under this setting may be chosen; controls may not."""
        return self.control == "none" and self.share == 1 and self.known_private == 0 and self.data is None


def attacked_index(count: int, limit: int | None, known: float = 0.0) -> Tensor | None:
    """Return which of ``count`` images of a part are attacked when ``limit`` are; None for all of them.

    A smaller limit gives a subset of a larger one's. The share ``known`` to the attacker is left out.
    """
    attacked = min(count - int(known * count), count if limit is None else limit)
    return None if attacked == count else _order(count)[:attacked].sort().values


def known_index(count: int, known: float) -> Tensor:
    """Return which of ``count`` private images an attacker has who knows the share ``known`` of them."""
    return _order(count)[count - int(known * count) :].sort().values


def _order(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))
