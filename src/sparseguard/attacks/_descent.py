"""Descent by Adam on one objective an image: the last iterate, or each image's lowest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The objective at one step; images share no terms, so that each one descends alone.

    Args:
        objective: ``(n,)``, what is minimized.
        loss: ``(n,)``, the part of it that is reported.
        iterate: tensors ``(n, ...)`` whose rows are kept where the objective is lowest.
        eligible: whether this iterate may be kept.
    """

    objective: Float[Tensor, " n"]
    loss: Float[Tensor, " n"]
    iterate: tuple[Tensor, ...] = ()
    eligible: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Descent:
    """The result of a descent.

    Args:
        iterate: of each image, at its lowest objective.
        losses: mean over the images, at every step.
    """

    iterate: tuple[Tensor, ...]
    losses: Float[Tensor, " steps"]


def descend_to_lowest(
    evaluate: Callable[[int], Evaluation],
    optimizer: torch.optim.Optimizer,
    steps: int,
    start: tuple[Tensor, ...] | None = None,
) -> Descent:
    """Take ``steps`` steps with cosine decay of the rate; every image keeps its iterate of lowest objective.

    Args:
        evaluate: from the number of the step to the objective there; called once more at the end.
        optimizer: of the leaves that ``evaluate`` reads.
        steps: how many; 0 evaluates the start.
        start: the iterate of an image whose objective is never finite; by default that of the first evaluation.
    """
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    lowest: Tensor | None = None
    iterate: tuple[Tensor, ...] = ()
    losses = []
    for step in range(steps + 1):
        here = evaluate(step)
        with torch.no_grad():
            if lowest is None:
                lowest = torch.full_like(here.objective, torch.inf)
                iterate = tuple(value.detach() for value in here.iterate) if start is None else start
            better = (here.objective < lowest) & here.eligible
            lowest = torch.where(better, here.objective, lowest)
            iterate = tuple(_choose(better, new, old) for new, old in zip(here.iterate, iterate, strict=True))
            losses.append(here.loss.detach().mean())
        if step < steps:
            _step(optimizer, here.objective)
            decay.step()
    return Descent(iterate=iterate, losses=torch.stack(losses))


def descend(
    evaluate: Callable[[int], Evaluation],
    optimizer: torch.optim.Optimizer,
    steps: int,
    project: Callable[[], None] | None = None,
) -> list[Float[Tensor, " n"]]:
    """Take ``steps`` steps at a constant rate and return every image's loss before each of them.

    Args:
        evaluate: from the number of the step to the objective there.
        optimizer: of the leaves that ``evaluate`` reads; they end at the last iterate.
        steps: how many.
        project: brings the leaves back into their range after each step; run without gradients.
    """
    losses = []
    for step in range(steps):
        here = evaluate(step)
        losses.append(here.loss.detach())
        _step(optimizer, here.objective)
        if project is not None:
            with torch.no_grad():
                project()
    return losses


def mean_squares(values: Tensor) -> Float[Tensor, " n"]:
    """Return the mean of each image's squared values."""
    return values.square().flatten(1).mean(1)


def _step(optimizer: torch.optim.Optimizer, objective: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    objective.sum().backward()
    optimizer.step()


def _choose(better: Bool[Tensor, " n"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)
