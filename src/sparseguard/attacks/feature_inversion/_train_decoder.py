"""The one loop that trains decoders: Adam, warm-up and cosine decay, stopped on attacker-val."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseguard.attacks.base import AttackContext
from sparseguard.core.errors import TrainingError
from sparseguard.core.out_of_core import CHUNK, mean_and_spread, row_chunks

Batch = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a decoder is trained; the same for every defense.

    Args:
        epochs: at most this many passes over the queries.
        batch_size: queries a step.
        lr: Adam's learning rate; one epoch of warm-up, then cosine decay to zero.
        patience: stop after this many epochs without a lower error on auxiliary_val.
    """

    epochs: int
    batch_size: int
    lr: float
    patience: int


@dataclass(frozen=True, kw_only=True)
class Training:
    """What became of a decoder; its weights are those of the best epoch, epoch 0 (untrained) among them.

    Args:
        epochs: passes made.
        best_epoch: the pass after which the error on auxiliary_val was lowest.
        errors: mean squared error on auxiliary_val before training and after every pass.
        change: distance of the last weights from the first, relative to the size of the first.
    """

    epochs: int
    best_epoch: int
    errors: tuple[float, ...]
    change: float

    @property
    def notes(self) -> dict[str, float]:
        """The figures to be kept."""
        return {
            "epochs": float(self.epochs),
            "best_epoch": float(self.best_epoch),
            "auxiliary_val_mse": min(self.errors),
        }

    @property
    def curve(self) -> tuple[float, ...]:
        """The errors as decibels."""
        return tuple(-10 * math.log10(max(error, 1e-10)) for error in self.errors)


def fit(
    network: nn.Module,
    data: Callable[[int], Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    error: Callable[[nn.Module], float],
    budget: Budget,
    context: AttackContext,
) -> Training:
    """Train ``network`` in place and leave it in evaluation mode with its best weights.

    Args:
        network: on the context's device.
        data: from the number of the epoch to tensors with one row a query, on the CPU.
        loss: of a batch of such rows, on the device.
        error: on auxiliary_val, in evaluation mode.
        budget: how long.
        context: of the attack.

    Raises:
        TrainingError: when the error on auxiliary_val is not finite.
    """
    start = _copy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=budget.lr)
    network.eval()
    errors, best, best_epoch, epoch = [_finite(error(network), 0, context)], start, 0, 0
    rows = data(0)
    steps = math.ceil(len(rows[0]) / budget.batch_size)
    with context.progress.task(context.label, budget.epochs * steps) as advance:
        while epoch < budget.epochs and epoch - best_epoch < budget.patience:
            rows = data(epoch)
            network.train()
            for number, index in enumerate(torch.randperm(len(rows[0])).split(budget.batch_size)):
                for group in optimizer.param_groups:
                    group["lr"] = budget.lr * _schedule(epoch + number / steps, budget.epochs)
                optimizer.zero_grad(set_to_none=True)
                loss(network, tuple(row[index].to(context.device) for row in rows)).backward()
                optimizer.step()
                advance(1)
            epoch += 1
            network.eval()
            errors.append(_finite(error(network), epoch, context))
            if errors[-1] < errors[best_epoch]:
                best, best_epoch = _copy(network), epoch
    change = _distance(network.state_dict(), start)
    network.load_state_dict(best)
    return Training(epochs=epoch, best_epoch=best_epoch, errors=tuple(errors), change=change)


def standardizing(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and spread of each feature (of each channel, for maps), shaped to broadcast."""
    mean, spread = mean_and_spread(features, (0, 2, 3) if features.ndim == 4 else (0,))
    return mean.to(features.dtype), spread.to(features.dtype).clamp_min(1e-6)


@torch.no_grad()
def in_chunks(function: Callable[..., Tensor], rows: Sequence[Tensor], device: torch.device) -> Tensor:
    """Apply ``function`` to the rows in chunks on ``device`` and gather the results on the CPU."""
    widest = max(rows, key=lambda row: row[:1].numel())
    chunks = row_chunks(widest, min(CHUNK, 512 * widest[:1].numel() * widest.element_size()))
    return torch.cat([function(*(row[some].to(device) for row in rows)).cpu() for some in chunks])


def _finite(error: float, epoch: int, context: AttackContext) -> float:
    if not math.isfinite(error):
        raise TrainingError(f"{context.label}: the decoder's error is not finite in epoch {epoch}.")
    return error


def _schedule(epoch: float, epochs: int) -> float:
    """Linear warm-up over the first epoch, then a cosine to zero."""
    warm = min(1.0, epoch + 1e-2)
    return warm * (1 + math.cos(math.pi * epoch / epochs)) / 2


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _distance(state: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    moved = sum(float((state[name] - value).square().sum()) for name, value in start.items())
    size = sum(float(value.square().sum()) for value in start.values())
    return math.sqrt(moved / max(size, 1e-12))
