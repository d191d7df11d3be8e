"""Supervised training by Adam: a given rate at every step, early stopping, the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn, optim

from sparseguard.core.errors import TrainingError

Batch = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """Task of supervised training, in periods with a validation after each.

    Args:
        batches: from the number of a period to its batches.
        loss: of a batch, in training mode.
        validate: the error to be lowered, in evaluation mode.
        name: of the network, for error messages.
    """

    batches: Callable[[int], Iterable[Batch]]
    loss: Callable[[Batch], Tensor]
    validate: Callable[[], float]
    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """How long and how fast a network learns.

    Args:
        periods: at most this many.
        patience: stop after this many periods without a lower error.
        rate: Adam's rate at each step, counted from 0 over all periods.
        validates_start: whether the untrained network competes as the best one.
        advance: called after every step with 1.
    """

    periods: int
    patience: int
    rate: Callable[[int], float]
    validates_start: bool
    advance: Callable[[int], None] = field(default=lambda _: None)


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """Errors of a training.

    Args:
        errors: before training (infinite where that was not validated) and after every period.
        best: the period after which the error was lowest; 0 for the start.
        change: distance of the last weights from the first, relative to the size of the first.
    """

    errors: tuple[float, ...]
    best: int
    change: float

    @property
    def periods(self) -> int:
        """Periods trained."""
        return len(self.errors) - 1


def train_supervised(network: nn.Module, problem: Problem, schedule: Schedule) -> TrainingCurve:
    """Train ``network`` in place and leave it in evaluation mode with its best weights.

    Raises:
        TrainingError: when a validated error is not finite.
    """
    start = _copy_state(network)
    optimizer = optim.Adam(network.parameters(), lr=schedule.rate(0))
    network.eval()
    errors = [_validate(problem, 0) if schedule.validates_start else math.inf]
    weights, best, period, step = start, 0, 0, 0
    while period < schedule.periods and period - best < schedule.patience:
        batches = problem.batches(period)
        network.train()
        for batch in batches:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            optimizer.zero_grad(set_to_none=True)
            problem.loss(batch).backward()
            optimizer.step()
            schedule.advance(1)
            step += 1
        period += 1
        network.eval()
        errors.append(_validate(problem, period))
        if errors[-1] < errors[best]:
            weights, best = _copy_state(network), period
    change = _relative_distance(network.state_dict(), start)
    network.load_state_dict(weights)
    return TrainingCurve(errors=tuple(errors), best=best, change=change)


def _validate(problem: Problem, period: int) -> float:
    error = problem.validate()
    if not math.isfinite(error):
        raise TrainingError(f"{problem.name}: the error on the validation images is not finite in epoch {period}.")
    return error


def _copy_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _relative_distance(state: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    moved = sum(float((state[name] - value).square().sum()) for name, value in start.items())
    size = sum(float(value.square().sum()) for value in start.values())
    return math.sqrt(moved / max(size, 1e-12))
