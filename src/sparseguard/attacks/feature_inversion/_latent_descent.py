"""Descent through a generator: in what goes into it, or in what one of its layers puts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparseguard.attacks._image_transforms import clipped
from sparseguard.generators import Prior
from sparseguard.generators.base import Parts

Images = Float[Tensor, "n c h w"]
Values = Sequence[Tensor]
Objective = Callable[[Images, Values, Values], tuple[Tensor, Tensor]]
"""From images, the values they are made of and how far these moved, to each image's objective and its misfit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """What one descent found.

    Args:
        values: every image's, at the iterate of lowest objective.
        images: made of them, in [0, 1].
        misfits: mean over the images at every step.
    """

    values: Values
    images: Images
    misfits: Float[Tensor, " steps"]


def descend(
    start: Values,
    sizes: Sequence[Float[Tensor, " n"]],
    rates: Sequence[float],
    render: Callable[[Values], Images],
    objective: Objective,
    steps: int,
) -> Stretch:
    """Move values by Adam towards the lowest objective, in units of their sizes, with cosine decay.

    Args:
        start: tensors whose first axis is the image.
        sizes: of every image's values.
        rates: step sizes.
        render: from values to images, which are clipped to [0, 1], the gradient passing.
        objective: from images, values and moves to each image's objective and misfit; images do not share terms.
        steps: how many; 0 evaluates the start.
    """
    moves = [torch.zeros_like(value, requires_grad=True) for value in start]
    units = [size.view(-1, *[1] * (value.ndim - 1)) for size, value in zip(sizes, start, strict=True)]
    optimizer = torch.optim.Adam([{"params": [move], "lr": lr} for move, lr in zip(moves, rates, strict=True)])
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    lowest = torch.full((len(start[0]),), torch.inf, device=start[0].device)
    kept, misfits = [*start], []
    with torch.no_grad():
        best = clipped(render(start))
    for step in range(steps + 1):
        values = [value + unit * move for value, unit, move in zip(start, units, moves, strict=True)]
        images = clipped(render(values))
        total, distance = objective(images, values, moves)
        with torch.no_grad():
            better = total < lowest
            lowest = torch.where(better, total, lowest)
            best = _where(better, images, best)
            kept = [_where(better, value, before) for value, before in zip(values, kept, strict=True)]
            misfits.append(distance.mean())
        if step == steps:
            break
        optimizer.zero_grad(set_to_none=True)
        total.sum().backward()
        optimizer.step()
        decay.step()
    return Stretch(values=kept, images=best, misfits=torch.stack(misfits))


@torch.no_grad()
def onward(prior: Prior, features: Parts, w: Tensor, layer: int) -> Parts:
    """Return what the layer after ``layers()[layer]`` puts out when the output of that is replaced by ``features``."""
    kept: list[Any] = []
    handle = prior.layers()[layer + 1].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        prior.finish(features, w, layer)
    finally:
        handle.remove()
    return (kept[0],) if isinstance(kept[0], Tensor) else tuple(kept[0])


def finishing(prior: Prior, features: Parts, layer: int) -> Callable[[Values], Images]:
    """Return the function from w and what ``layers()[layer]`` puts out, without its None, to images."""
    return lambda values: prior.finish(filled(features, values[1:]), values[0], layer)


def filled(pattern: Parts, values: Values) -> Parts:
    """Return the values with None where the pattern has None."""
    left = iter(values)
    return tuple(None if part is None else next(left) for part in pattern)


def mean_squared(values: Tensor) -> Float[Tensor, " n"]:
    """Return each image's mean of squares."""
    return values.square().flatten(1).mean(1)


def _where(better: Bool[Tensor, " n"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)
