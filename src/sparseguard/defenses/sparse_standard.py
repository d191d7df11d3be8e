"""Sparse-Standard: one sparse layer in front of an ordinary network."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from sparseguard.defenses.base import Defense, State
from sparseguard.defenses.sparse_layers import inactive_sparse_layer
from sparseguard.settings import OddSize, settings
from sparseguard.sparse import SparseCode2d
from sparseguard.stages import Blueprint, Shape, StagedModel


@settings
class SparseStandard(Defense):
    """One sparse-coding layer after the image, then one convolution.

    Args:
        lambd: sparsity weight lambda.
        features: atoms of the sparse layer (random, unit norm, not learned).
        channels: output channels of the convolution.
        kernel_size: side of atoms and convolution kernels.
        steps: solver steps.

    Source: paper, section 4 (Sparse-Standard), after Teti et al. 2022. The convolution has no nonlinearity of its own,
    as in the released code; there lambda is 0.25 on grey images and 0.1 on colour. Feature numbers are the released
    code's.
    """

    revision: ClassVar[int] = 3
    summary: ClassVar[str] = "one sparse-coding layer and one convolution"
    source: ClassVar[str] = "paper, section 4 (Sparse-Standard); Teti et al., ICML 2022"
    lambd: Annotated[float, Field(ge=0)] = 0.25
    features: Annotated[int, Field(ge=1)] = 16
    channels: Annotated[int, Field(ge=1)] = 28
    kernel_size: OddSize = 5
    steps: Annotated[int, Field(ge=1)] = 20

    def place(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Put the sparse layer in front of the stem, as a stage of its own, and the convolution in the stem."""

        def codes(shape: Shape) -> nn.Module:
            return SparseCode2d(shape[0], self.features, self.kernel_size, lambd=self.lambd, steps=self.steps)

        def stem(shape: Shape) -> nn.Module:
            return nn.Conv2d(shape[0], self.channels, self.kernel_size, padding="same")

        return blueprint.put_before("stem", "codes", codes).replace("stem", stem)

    def inactive(self, model: StagedModel, images: Tensor) -> str | None:
        """Look at the sparse layer's codes."""
        return inactive_sparse_layer(model, images)
