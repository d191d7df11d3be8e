"""Ridge regression plus a trained residual decoder: dense, or convolutional."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import AttackContext
from sparseguard.attacks.feature_inversion._decoders.base import TrainedDecoder, run_decoder
from sparseguard.attacks.feature_inversion._decoders.networks import ImageShape, ResidualDecoder, ResidualMLP, TapShape
from sparseguard.core.config import Count, settings
from sparseguard.types import AttackInputs, AttackResult


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
    width: Count = 512
    depth: Count = 2

    def network(self, tap: TapShape, shape: ImageShape) -> nn.Module:
        """Return the decoder."""
        return ResidualMLP(tap, shape, self.width, self.depth)

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:
        """Fit ridge, train the correction, apply both."""
        return run_decoder(self, access, inputs, context)


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
    width: Count = 16
    depth: Count = 1

    def network(self, tap: TapShape, shape: ImageShape) -> nn.Module:
        """Return the decoder."""
        return ResidualDecoder(tap, shape, self.width, self.depth)

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:
        """Fit ridge, train the correction, apply both."""
        return run_decoder(self, access, inputs, context)
