"""Five-block convolutional network."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from sparseguard.core.config import OddSize, settings
from sparseguard.core.staged_model import Blueprint, Builder, Shape, Stage
from sparseguard.targets.backbones.base import DENSE_TAPS, Backbone, Scale, build_dense, build_plain, make_dense_stages


@settings
class Conv(Backbone):
    """Five blocks of convolution, normalization, ReLU and pooling, then two dense layers and a head.

    Stages: ``block1`` to ``block5``, each a convolution that keeps the grid, the normalization, ReLU and, from the
    second block on, max-pooling by 2 as long as the grid has two rows and columns; then Linear, ReLU, Linear, ReLU,
    Linear. Any image size, gray or color. 32 x 32 pixels leave 256 x 2 x 2 values, 224 x 224 leave 256 x 14 x 14.

    Args:
        width: of the two dense layers.
        channels: of the blocks.
        kernel_size: side of the kernels; odd.
        normalization: ``batch``, or ``group``, each image by itself, for DP-SGD.

    Taps: ``block1`` to ``block5`` (a grid of values, after ReLU and pooling; as many as there are channels),
    ``first_linear`` (output of the first dense layer), ``last_hidden`` (of the second), ``.relu`` of both dense layers,
    and ``logits``.

    Source: the released code's network for CIFAR-10 and CelebA: channels, kernels, pooling, first dense layer of 500.

    Differs: ReLU comes after the normalization and there is no dropout; a second dense layer stands where the code's
    first tap and last one are the same; sizes follow the image.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = (
        "five convolutional blocks, dense layers; taps block1..., first_linear, last_hidden, logits"
    )
    width: Annotated[int, Field(ge=1)] = 500
    channels: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (16, 32, 64, 128, 256)
    kernel_size: OddSize = 5
    normalization: Literal["batch", "group"] = "batch"

    def blueprint(self, classes: int) -> Blueprint:
        """Return the stages."""
        blocks = [
            Stage(f"block{number}", self._make_block_builder(width, pooled=number > 1))
            for number, width in enumerate(self.channels, start=1)
        ]
        return Blueprint(
            stages=(
                Stage("input", build_plain(Scale)),
                Stage("stem", build_plain(nn.Identity)),
                *blocks,
                *make_dense_stages(self.width, "first", "last"),
                Stage("head", build_dense(classes)),
            ),
            taps={block.name: block.name for block in blocks} | DENSE_TAPS,
        )

    def _make_block_builder(self, width: int, *, pooled: bool) -> Builder:
        def build(shape: Shape) -> nn.Module:
            norm = nn.BatchNorm2d(width) if self.normalization == "batch" else nn.GroupNorm(1, width)
            block = nn.Sequential(nn.Conv2d(shape[0], width, self.kernel_size, padding="same"), norm, nn.ReLU())
            if pooled and min(shape[1:]) >= 2:
                block.append(nn.MaxPool2d(2))
            return block

        return build
