"""Control with SCA's widths, kernels and normalization, and convolutions instead of sparse codes."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, final

from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import OddSize, settings
from sparseguard.core.staged_model import Blueprint, Shape, StagedModel
from sparseguard.defenses.base import Defense, State
from sparseguard.defenses.sparse_coding._inspect import find_inactive_layer
from sparseguard.defenses.sparse_coding._normalization import MIXES, Normalization, build_normalization
from sparseguard.defenses.sparse_coding._threshold_layer import ThresholdCode2d
from sparseguard.sparse import StandardizeImage


@final
@settings
class ConvControl(Defense):
    r"""SCA with a convolution and a ReLU in place of every sparse code.

    .. math:: R(X) = \mathrm{relu}(X * W + b)

    It separates the effect of SCA's architecture (two wide layers, normalizations, standardized inputs) from that of
    sparse coding.

    Args:
        features: filters of each layer.
        kernel_size: side of the square filters; odd. The padding is ``same``.
        learned: whether filters and biases are learned; else filters are SCA's random atoms, without biases.
        standardize: give each image mean 0 and variance 1 before each convolution, as SCA's layers do.
        normalization: after each layer: ``batch``, ``group`` (each image alone) or ``none``.

    Source: ours (control).

    Differs: it is no published defense.

    Limits: it has no sparsity weight; training decides how many coefficients are active.

    Released code: not in it. Its undefended networks have other layers than those with sparse coding.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "control: SCA's widths and normalization with plain convolutions and ReLU"
    source: ClassVar[str] = "ours (control)"
    is_control: ClassVar[bool] = True
    features: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (16, 28)
    kernel_size: OddSize = 5
    learned: bool = True
    standardize: bool = True
    normalization: Normalization = "batch"

    def find_unaccounted_access(self) -> str | None:
        """Return that batch normalization mixes the images of a batch."""
        return MIXES if self.normalization == "batch" else None

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Insert the first layer before the stem as a stage, and the other layers into the stem."""

        def build_stem(shape: Shape) -> nn.Module:
            modules = [build_normalization(self.normalization, shape[0])]
            for channels, features in pairwise(self.features):
                modules += [self._build_layer(channels, features), build_normalization(self.normalization, features)]
            return nn.Sequential(*modules)

        return blueprint.insert_before(
            "stem", "codes", lambda shape: self._build_layer(shape[0], self.features[0])
        ).replace("stem", build_stem)

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Check every layer's output."""
        stages = [model.stages[name] for name in ("codes", "stem") if name in model.stages]
        layers = [m for stage in stages for m in stage.modules() if isinstance(m, nn.ReLU | ThresholdCode2d)]
        return find_inactive_layer(model, images, "convolution", layers, [True] * len(layers))

    def _build_layer(self, channels: int, features: int) -> nn.Module:
        if not self.learned:
            return ThresholdCode2d(channels, features, self.kernel_size, lambd=0.0, standardize=self.standardize)
        first = StandardizeImage() if self.standardize else nn.Identity()
        return nn.Sequential(first, nn.Conv2d(channels, features, self.kernel_size, padding="same"), nn.ReLU())
