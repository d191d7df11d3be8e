"""Ridge regression plus a residual multilayer perceptron."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from sparseguard.attacks.base import AttackContext
from sparseguard.attacks.networks import ImageShape, ResidualMLP, TapShape
from sparseguard.attacks.trained import TrainedDecoder, decoded
from sparseguard.leak import Leak
from sparseguard.settings import settings
from sparseguard.types import AttackResult, Goal


@settings
class RidgeMLP(TrainedDecoder):
    """Correct ridge's guess by dense layers (see `TrainedDecoder` for the training).

    Args:
        width: of the hidden layers.
        depth: how many hidden layers.

    Source: ours; dense decoders invert dense taps (Titcombe et al. 2021 and the code published with the paper begin
    with one).
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "ridge plus a residual multilayer perceptron, trained with Adam"
    source: ClassVar[str] = "paper, section 2 (end-to-end and split threat models); architecture ours"
    width: Annotated[int, Field(ge=1)] = 512
    depth: Annotated[int, Field(ge=1)] = 2

    def network(self, tap: TapShape, shape: ImageShape) -> nn.Module:
        """Return the decoder."""
        return ResidualMLP(tap, shape, self.width, self.depth)

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Fit ridge, train the correction, apply both."""
        return decoded(self, leak, goal, context)
