"""Ridge regression plus a residual convolutional decoder."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from sparseguard.attacks.base import AttackContext
from sparseguard.attacks.networks import ImageShape, ResidualDecoder, TapShape
from sparseguard.attacks.trained import TrainedDecoder, decoded
from sparseguard.leak import Leak
from sparseguard.settings import settings
from sparseguard.types import AttackResult, Goal


@settings
class RidgeConv(TrainedDecoder):
    """Correct ridge's guess by a convolutional decoder (see `TrainedDecoder` for the training).

    Args:
        width: channels of the decoder at full size.
        depth: convolutions at full size.

    Source: the paper's end-to-end and split attacks train a decoder; the architecture is ours. The same budget is
    spent on every defense.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "ridge plus a residual convolutional decoder, trained with Adam"
    source: ClassVar[str] = "paper, section 2 (end-to-end and split threat models); architecture ours"
    width: Annotated[int, Field(ge=1)] = 16
    depth: Annotated[int, Field(ge=1)] = 1

    def network(self, tap: TapShape, shape: ImageShape) -> nn.Module:
        """Return the decoder."""
        return ResidualDecoder(tap, shape, self.width, self.depth)

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Fit ridge, train the correction, apply both."""
        return decoded(self, leak, goal, context)
