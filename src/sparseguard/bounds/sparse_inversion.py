"""Inversion of sparse codes: the part of the layer's input in the span of the active atoms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.sparse import Dictionary

PerImage = Float[Tensor, " n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Inversion:
    r"""The part of each input that its code determines.

    Args:
        projection: ``(n, ...)``, :math:`P_S z`, in the units of the layer's (standardized) input.
        residual: ``(n,)``, the relative residual of the optimality equalities, :math:`\|W_S^T y - \lambda\| /
            \|\lambda\|`. Near 0 some input has this code; far from 0 the code is no solution, whatever the input.
        gradient: ``(n,)``, the relative residual of the normal equations, where the iteration was stopped.
        steps: conjugate gradient steps taken.
    """

    projection: Float[Tensor, "n *image"]
    residual: PerImage
    gradient: PerImage
    steps: int


@torch.no_grad()
def invert_code(
    dictionary: Dictionary,
    code: Float[Tensor, "n *code"],
    lambd: float | Float[Tensor, " f"],
    *,
    tol: float = 1e-4,
    max_steps: int = 500,
) -> Inversion:
    r"""Return the projection of each layer input on the span of its active atoms, from the code alone.

    A code that minimizes :math:`\tfrac12\|z - r \circledast W\|^2 + \lambda\|r\|_1` meets :math:`W_S^T (z - W_S r_S)
    = \lambda \operatorname{sign}(r_S)` on its support S. So the residual's part in the span is the shortest y with
    :math:`W_S^T y = \lambda \operatorname{sign}(r_S)`, and

    .. math:: P_S z = W_S r_S + y = W_S \bigl(r_S + \lambda (W_S^T W_S)^+ \operatorname{sign}(r_S)\bigr)

    It is exact for an exact code and needs no training. For a code after few solver steps it is an estimate; `residual`
    is then what the equalities leave. The shortest least-squares y is found by conjugate gradients on the normal
    equations, each image alone.

    Args:
        dictionary: the layer's atoms, for inputs of this size.
        code: ``(n, *code_shape)``, of either sign.
        lambd: the layer's lambda, one or one a feature.
        tol: an image is finished when its normal equations' relative residual is at most this.
        max_steps: most steps.

    Raises:
        ValueError: when the code does not fit the dictionary.

    Source: optimality conditions of the lasso (Tibshirani 2013, "The lasso problem and uniqueness").

    Example:
        >>> import torch
        >>> from sparseguard.sparse import DenseDictionary, Problem, solve
        >>> from sparseguard.bounds import invert_code
        >>> dictionary, z = DenseDictionary(torch.eye(3)), torch.tensor([[2.0, 0.1, 1.0]])
        >>> code = solve(Problem(z, dictionary, 0.5), steps=100).code
        >>> invert_code(dictionary, code, 0.5).projection.round(decimals=3)
        tensor([[2., 0., 1.]])
    """
    points = _iterate(dictionary, code, lambd, tol)
    last = next(points)
    while last.steps < max_steps and bool((last.slope > last.limit).any()):
        last = next(points)
    tiny = torch.finfo(code.dtype).tiny
    return Inversion(
        projection=dictionary.synthesis(code) + last.y,
        residual=(_squared_norm(last.remainder) / _squared_norm(last.target).clamp_min(tiny)).sqrt(),
        gradient=(last.slope / last.start.clamp_min(tiny)).sqrt(),
        steps=last.steps,
    )


@torch.no_grad()
def choose_steps(
    dictionary: Dictionary,
    code: Float[Tensor, "n *code"],
    lambd: float | Float[Tensor, " f"],
    inputs: Float[Tensor, "n *image"],
    *,
    limit: int = 200,
    patience: int = 20,
) -> int:
    """Return the number of steps after which `invert_code` comes nearest to ``inputs``, in mean squared error.

    For codes that are no solution the equalities contradict each other, and early stopping is what keeps the inversion
    stable. An attacker finds the number on its own images.

    Args:
        dictionary: as in `invert_code`.
        code: as in `invert_code`.
        lambd: as in `invert_code`.
        inputs: the layer's (standardized) inputs that the codes belong to.
        limit: most steps.
        patience: steps without an improvement after which to stop.
    """
    difference = inputs - dictionary.synthesis(code)
    lowest, best = float("inf"), 0
    for point in _iterate(dictionary, code, lambd, 0.0):
        error = float(_squared_norm(difference - point.y).mean())
        if error < lowest:
            lowest, best = error, point.steps
        if point.steps >= min(limit, best + patience):
            break
    return best


def hidden_fraction(inputs: Float[Tensor, "n *image"], projection: Float[Tensor, "n *image"]) -> PerImage:
    r"""Return the fraction of each input's energy that the projection misses, :math:`\|z - P_S z\|^2 / \|z\|^2`.

    In [0, 1] for an exact projection; an input of zeros hides nothing (0).
    """
    energy = _squared_norm(inputs)
    return torch.where(
        energy > 0, _squared_norm(inputs - projection) / energy.clamp_min(torch.finfo(energy.dtype).tiny), 0
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Point:
    """An iterate of the conjugate gradients: y, the remainder of the equalities, and the squared size of the slope."""

    y: Tensor
    remainder: Tensor
    target: Tensor
    slope: PerImage
    start: PerImage
    limit: PerImage
    steps: int


def _iterate(dictionary: Dictionary, code: Tensor, lambd: float | Tensor, tol: float) -> Iterator[_Point]:
    """Yield iterates towards the shortest least-squares y, without end; an image below its limit no longer moves."""
    if tuple(code.shape[1:]) != dictionary.code_shape:
        raise ValueError(f"expected codes (n, {dictionary.code_shape}), got {tuple(code.shape)}.")
    active, tiny = code != 0, torch.finfo(code.dtype).tiny
    remainder = target = torch.sign(code) * (dictionary.per_feature(lambd) if isinstance(lambd, Tensor) else lambd)
    direction = dictionary.synthesis(remainder)
    y, size = torch.zeros_like(direction), _squared_norm(direction)
    start, limit = size, tol**2 * size
    for steps in count():
        yield _Point(y=y, remainder=remainder, target=target, slope=size, start=start, limit=limit, steps=steps)
        image = dictionary.analysis(direction) * active
        length = torch.where(size > limit, size / _squared_norm(image).clamp_min(tiny), 0)
        y = y + _broadcast(length, y) * direction
        remainder = remainder - _broadcast(length, remainder) * image
        slope = dictionary.synthesis(remainder)
        before, size = size, _squared_norm(slope)
        direction = slope + _broadcast(size / before.clamp_min(tiny), slope) * direction


def _squared_norm(values: Tensor) -> Tensor:
    return values.flatten(1).square().sum(1)


def _broadcast(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.ndim - 1))
