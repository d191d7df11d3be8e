"""Descent through a generator: in its latents, or in the output of one of its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.attacks._descent import Descent, Evaluation, descend_to_lowest
from sparseguard.attacks._image_transforms import clip_straight_through
from sparseguard.generators import Prior
from sparseguard.generators.base import Parts
from sparseguard.types import Images

Values = Sequence[Tensor]
Objective = Callable[[Images, Values, Values], tuple[Tensor, Tensor]]
"""From images, the values they are rendered from and their moves, to each image's objective and reported loss."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Values that move together.

    Args:
        start: ``(n, ...)``.
        size: ``(n,)``, the unit of each image's moves.
        lr: step size in these units.
    """

    start: Tensor
    size: Float[Tensor, " n"]
    lr: float


def descend(groups: Sequence[Group], render: Callable[[Values], Images], objective: Objective, steps: int) -> Descent:
    """Move values by Adam towards the lowest objective, in units of their sizes, with cosine decay.

    Args:
        groups: the values.
        render: from values to images, which are clipped to [0, 1], the gradient passing.
        objective: from images, values and moves to each image's objective and loss; images do not share terms.
        steps: how many; 0 evaluates the start.

    Returns:
        The iterates are images, then values.
    """
    moves = [torch.zeros_like(group.start, requires_grad=True) for group in groups]
    units = [group.size.view(-1, *[1] * (group.start.ndim - 1)) for group in groups]

    def evaluate(_step: int) -> Evaluation:
        values = [group.start + unit * move for group, unit, move in zip(groups, units, moves, strict=True)]
        images = clip_straight_through(render(values))
        total, loss = objective(images, values, moves)
        return Evaluation(objective=total, loss=loss, iterate=(images, *values))

    rates = [{"params": [move], "lr": group.lr} for group, move in zip(groups, moves, strict=True)]
    return descend_to_lowest(evaluate, torch.optim.Adam(rates), steps)


@torch.no_grad()
def next_features(prior: Prior, features: Parts, w: Tensor, layer: int) -> Parts:
    """Return the output of the layer after ``layers()[layer]`` when the output of that is replaced by ``features``."""
    outputs: list[Any] = []
    handle = prior.layers()[layer + 1].register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        prior.finish(features, w, layer)
    finally:
        handle.remove()
    return (outputs[0],) if isinstance(outputs[0], Tensor) else tuple(outputs[0])


def render_from(prior: Prior, features: Parts, layer: int) -> Callable[[Values], Images]:
    """Return the function from w and the output of ``layers()[layer]``, without its None, to images."""
    return lambda values: prior.finish(insert_missing(features, values[1:]), values[0], layer)


def insert_missing(pattern: Parts, values: Values) -> Parts:
    """Return the values with None where the pattern has None."""
    remaining = iter(values)
    return tuple(None if part is None else next(remaining) for part in pattern)
