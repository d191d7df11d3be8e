"""Quantized features at the tap: rounded values, few values, or both."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.errors import RecipeError
from sparseguard.core.staged_model import Blueprint, Shape, StagedModel
from sparseguard.defenses.base import Defense, State

QUANTIZED = "quantized"


def round_to_levels(values: Tensor, bits: int) -> Tensor:
    """Round values in [-1, 1] to ``2^bits`` evenly spaced levels, ends included; the gradient is straight-through.

    0 is not one of the levels.

    Example:
        >>> import torch
        >>> round_to_levels(torch.tensor([-1.0, -0.1, 0.1, 0.9]), 1).tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    steps = 2**bits - 1
    levels: Tensor = ((values.detach() + 1) / 2 * steps).round() * 2 / steps - 1
    return levels + (values - values.detach())


def mask_largest(values: Tensor, count: int) -> Tensor:
    """Return 1 where an image's values are among its ``count`` largest in magnitude, and 0 elsewhere.

    Args:
        values: ``(n, ...)``.
        count: at most the number of an image's values.
    """
    flat = values.detach().flatten(1)
    chosen = flat.abs().topk(count, dim=1).indices
    return torch.zeros_like(flat).scatter_(1, chosen, 1.0).view(values.shape)


@final
class FewBits(nn.Module):
    """Quantization: bound and round values, keep the largest of each image, or both.

    Args:
        bits: of the rounding; 0: none.
        top_k: number of values of an image to keep; None: all.
    """

    def __init__(self, bits: int, top_k: int | None) -> None:
        super().__init__()
        self.bits = bits
        self.top_k = top_k

    def forward(self, values: Tensor) -> Tensor:
        """Return the quantized values."""
        levels = round_to_levels(values.tanh(), self.bits) if self.bits else values
        return levels if self.top_k is None else levels * mask_largest(values, self.top_k)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"bits={self.bits}, top_k={self.top_k}"


@settings
class Quantize(Defense):
    r"""Quantize the features at the tap: few levels a value, few values an image, or both.

    .. math:: \tilde z_i = m_i \left(\frac{2}{2^q - 1} \operatorname{round}\!\left((2^q - 1) \frac{\tanh(z_i) + 1}{2}
        \right) - 1\right), \quad m_i = 1 \text{ for the } k \text{ largest } |z_i|, \text{ else } 0

    A stage `quantized` follows the stage of the tap, in training and at every query. With `bits` q, the hyperbolic
    tangent bounds the values, and they are rounded to :math:`2^q` evenly spaced levels from -1 to 1; in training the
    gradient ignores the rounding (straight-through). With `top_k` k, the k values of largest
    magnitude of each image stay, and the gradient passes to these only. With both, the choice comes before the
    rounding; no level is 0, so every image keeps exactly k. An image of d values reveals at most q d bits with `bits`
    alone, and k q + log2 of (d choose k) bits with both.

    Args:
        bits: levels of a value in bits, 1 to 8; 0: no bound and no rounding, only `top_k`.
        top_k: number of values of an image to keep, fewer than it has; absent: all.

    Raises:
        RecipeError: when neither is given, or `top_k` keeps every value.

    Source: ours, as the simplest limit on the information at a tap. The straight-through gradient: Bengio, Leonard,
    Courville, Estimating or Propagating Gradients Through Stochastic Neurons, 2013.

    Differs: nothing to differ from.

    Limits: a bound on the bits of one output says little about the quality of a reconstruction, as d is in the
    hundreds. The rounding is the same at every query, and `top_k` alone releases the values it keeps exactly. After a
    ReLU only the levels above 0 occur.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "few levels a value, few values an image at the tap, or both"
    source: ClassVar[str] = "ours"
    acts_at_tap: ClassVar[bool] = True
    bits: Annotated[int, Field(ge=0, le=8)] = 2
    top_k: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _check_limits(self) -> Quantize:
        if not self.bits and self.top_k is None:
            raise ValueError("bits = 0 needs top_k")
        return self

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Insert the stage after the tap."""

        def build(shape: Shape) -> nn.Module:
            if self.top_k is not None and self.top_k >= math.prod(shape):
                raise RecipeError(f"quantize: top_k {self.top_k} keeps all {math.prod(shape)} values of an image.")
            return FewBits(self.bits, self.top_k)

        return blueprint.insert_after_tap(QUANTIZED, build)

    @torch.no_grad()
    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Count levels and values."""
        if QUANTIZED not in model.stages:
            return f"the model has no stage '{QUANTIZED}'"
        features = model.forward_to(images, QUANTIZED).flatten(1)
        count = int((features != 0).sum(1).max())
        if self.top_k is not None and count > self.top_k:
            return f"an image has {count} values that are not 0, more than top_k {self.top_k}"
        levels, limit = len(features.unique()), 2**self.bits + (self.top_k is not None)
        return f"values have {levels} levels, more than {limit}" if self.bits and levels > limit else None
