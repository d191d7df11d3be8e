"""Network of the released code that treats the rows of an image one by one."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, final

from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.staged_model import Blueprint, Stage
from sparseguard.targets.backbones.base import Backbone, Scale, build_dense, build_plain


@final
class OnRows(nn.Module):
    """One dense layer on every row; ``(n, ...)`` with rows of ``in_features`` values to ``(n, rows * out_features)``.

    Args:
        in_features: length of a row.
        out_features: outputs of each row.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.dense: nn.Module = nn.Linear(in_features, out_features)

    def forward(self, values: Tensor) -> Tensor:
        """Return the layer's outputs of the rows, concatenated."""
        rows = math.prod(values.shape[1:]) // self.in_features
        outputs: Tensor = self.dense(values.reshape(len(values), rows, self.in_features))
        return outputs.flatten(1)


@settings
class RowLinear(Backbone):
    """Dense layers on each row of the image alone, w -> 500 -> 500 -> 28 -> 500, then a head that sees all rows.

    w is the width of the input, of any number of channels; the layers treat the rows of all channels alike. ReLU
    follows the first three. Taps are flat: the outputs of the rows one after the other.

    Args:
        width: of the dense layers but the third.
        narrow: of the third; the released code has the width of the images there.

    Taps: ``first_linear`` (output of the first dense layer), ``first_linear.relu``, ``last_hidden`` (of the fourth,
    which the head reads without a nonlinearity), and ``logits``.

    Source: the released code's network for MNIST-like images, from which 14,000 values leak at either tap.

    Limits: of a defense that narrows the first dense layer, the rank is that of one row, not of the image.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "dense layers on rows, as in the released code; taps first_linear, last_hidden, logits"
    width: Annotated[int, Field(ge=1)] = 500
    narrow: Annotated[int, Field(ge=1)] = 28

    def blueprint(self, classes: int) -> Blueprint:
        """Return the stages."""
        return Blueprint(
            stages=(
                Stage("input", build_plain(Scale)),
                Stage("stem", build_plain(nn.Identity)),
                Stage("first", lambda shape: OnRows(shape[-1], self.width)),
                Stage("first_relu", build_plain(nn.ReLU)),
                Stage("hidden", lambda _: OnRows(self.width, self.width)),
                Stage("hidden_relu", build_plain(nn.ReLU)),
                Stage("narrow", lambda _: OnRows(self.width, self.narrow)),
                Stage("narrow_relu", build_plain(nn.ReLU)),
                Stage("last", lambda _: OnRows(self.narrow, self.width)),
                Stage("head", build_dense(classes)),
            ),
            taps={
                "first_linear": "first",
                "first_linear.relu": "first_relu",
                "last_hidden": "last",
                "logits": "head",
            },
        )
