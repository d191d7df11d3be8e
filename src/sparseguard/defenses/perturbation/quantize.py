"""Few bits at the cut: rounded values, few values, or both."""

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


def rounded(values: Tensor, bits: int) -> Tensor:
    """Round values in [-1, 1] to the nearest of ``2^bits`` evenly spaced ones, ends included; gradients pass as if not.

    0 is none of the levels.

    Example:
        >>> import torch
        >>> rounded(torch.tensor([-1.0, -0.1, 0.1, 0.9]), 1).tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    steps = 2**bits - 1
    levels: Tensor = ((values.detach() + 1) / 2 * steps).round() * 2 / steps - 1
    return levels + (values - values.detach())


def largest(values: Tensor, count: int) -> Tensor:
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
    """Bound and round values, keep the largest of each image, or both.

    Args:
        bits: of the rounding; 0 leaves values as they are.
        top_k: how many values of an image are kept; None: all.
    """

    def __init__(self, bits: int, top_k: int | None) -> None:
        super().__init__()
        self.bits = bits
        self.top_k = top_k

    def forward(self, values: Tensor) -> Tensor:
        """Return the values left."""
        left = rounded(values.tanh(), self.bits) if self.bits else values
        return left if self.top_k is None else left * largest(values, self.top_k)

    def extra_repr(self) -> str:
        """Tell the settings."""
        return f"bits={self.bits}, top_k={self.top_k}"


@settings
class Quantize(Defense):
    r"""Leave few bits of what leaks: few levels a value, few values an image, or both.

    .. math:: \tilde z_i = m_i \left(\frac{2}{2^q - 1} \operatorname{round}\!\left((2^q - 1) \frac{\tanh(z_i) + 1}{2}
        \right) - 1\right), \quad m_i = 1 \text{ for the } k \text{ largest } |z_i|, \text{ else } 0

    A stage `quantized` stands behind the stage under attack, in training and at every query. With `bits` q, values are
    bounded by the hyperbolic tangent and rounded to :math:`2^q` evenly spaced levels from -1 to 1; in training the
    gradient passes as if they had not been rounded (straight-through). With `top_k` k, the k values of largest
    magnitude of each image are kept, and the gradient passes to these only. With both, values are chosen by what they
    were before they are rounded; no level is 0, so every image keeps exactly k. An image of d values leaks at most q d
    bits with `bits` alone, and k q + log2 of (d choose k) bits with both.

    Args:
        bits: levels of a value in bits, 1 to 8; 0: values are neither bounded nor rounded, only chosen by `top_k`.
        top_k: how many values of an image are kept, fewer than it has; absent: all.

    Raises:
        RecipeError: when neither is given, or `top_k` keeps every value.

    Source: ours, as the plainest limit on what a tap can carry. The straight-through gradient: Bengio, Leonard,
    Courville, Estimating or Propagating Gradients Through Stochastic Neurons, 2013.

    Differs: nothing to differ from.

    Limits: a bound on the bits of one answer says little about how like the image a reconstruction gets, as d is in the
    hundreds. The rounding is the same at every query, and `top_k` alone gives away the values it keeps exactly. Behind
    a ReLU only the levels above 0 occur.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "what leaks has few levels a value, few values an image, or both"
    source: ClassVar[str] = "ours"
    acts_at_tap: ClassVar[bool] = True
    bits: Annotated[int, Field(ge=0, le=8)] = 2
    top_k: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Quantize:
        if not self.bits and self.top_k is None:
            raise ValueError("bits = 0 needs top_k")
        return self

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Put the stage behind the one that leaks."""

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
        leaked = model.forward_to(images, QUANTIZED).flatten(1)
        kept = int((leaked != 0).sum(1).max())
        if self.top_k is not None and kept > self.top_k:
            return f"an image leaks {kept} values that are not 0, more than top_k {self.top_k}"
        found, promised = len(leaked.unique()), 2**self.bits + (self.top_k is not None)
        return f"values have {found} levels, more than {promised}" if self.bits and found > promised else None
