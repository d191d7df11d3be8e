"""Networks of dense layers."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from sparseguard.core.config import settings
from sparseguard.core.staged_model import Blueprint, Stage
from sparseguard.targets.backbones.base import DENSE_TAPS, Backbone, Scale, build_dense, build_plain, make_dense_stages


@settings
class Linear(Backbone):
    """Three dense layers and a head: Linear, ReLU, Linear, ReLU, Linear, ReLU, Linear.

    Taps: ``first_linear`` (output of the first dense layer), ``last_hidden`` (of the third), ``.relu`` of both, and
    ``logits``.

    Source: the "linear networks" of the paper, section 4; layer sizes are ours.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "three dense layers and a head; taps first_linear, last_hidden, logits"
    width: Annotated[int, Field(ge=1)] = 500

    def blueprint(self, classes: int) -> Blueprint:
        """Return the stages."""
        return Blueprint(
            stages=(
                Stage("input", build_plain(Scale)),
                Stage("stem", build_plain(nn.Identity)),
                *make_dense_stages(self.width, "first", "hidden", "last"),
                Stage("head", build_dense(classes)),
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
                Stage("input", build_plain(Scale)),
                Stage("stem", build_plain(nn.Identity)),
                *make_dense_stages(self.width, "first"),
                Stage("head", build_dense(classes)),
            ),
            taps={"first_linear": "first", "first_linear.relu": "first_relu", "logits": "head"},
        )
