"""Training of decoders: Adam with warm-up and cosine decay, stopped on auxiliary_val; the same for every defense."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseguard.attacks.base import AttackContext
from sparseguard.core.out_of_core import CHUNK, row_chunks
from sparseguard.numerics.supervised import Batch, Problem, Schedule, TrainingCurve, train_supervised


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Length of a decoder's training.

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

    def rate(self, epoch: float) -> float:
        """Return the learning rate after ``epoch`` epochs: linear warm-up over the first, times a cosine to zero."""
        warm = min(1.0, epoch + 1e-2)
        return self.lr * (warm * (1 + math.cos(math.pi * epoch / self.epochs)) / 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoding:
    """Training data and loss of a decoder.

    Args:
        data: from the number of the epoch to tensors with one row a query, on the CPU.
        loss: of a batch of such rows, on the device.
        error: on auxiliary_val, in evaluation mode.
    """

    data: Callable[[int], Batch]
    loss: Callable[[Batch], Tensor]
    error: Callable[[], float]


def train_decoder(network: nn.Module, decoding: Decoding, budget: Budget, context: AttackContext) -> TrainingCurve:
    """Train ``network`` in place and leave it in evaluation mode with the weights of its best epoch.

    The untrained network competes, as epoch 0.

    Args:
        network: on the context's device.
        decoding: what it learns.
        budget: how long.
        context: of the attack.

    Raises:
        TrainingError: when the error on auxiliary_val is not finite.
    """
    steps = math.ceil(len(decoding.data(0)[0]) / budget.batch_size)

    def batches(epoch: int) -> Iterator[Batch]:
        rows = decoding.data(epoch)
        for index in torch.randperm(len(rows[0])).split(budget.batch_size):
            yield tuple(row[index].to(context.device) for row in rows)

    problem = Problem(
        batches=batches, loss=decoding.loss, validate=decoding.error, name=f"{context.label}: the decoder"
    )
    with context.progress.task(context.label, budget.epochs * steps) as advance:
        schedule = Schedule(
            periods=budget.epochs,
            patience=budget.patience,
            rate=lambda step: budget.rate(step // steps + step % steps / steps),
            validates_start=True,
            advance=advance,
        )
        return train_supervised(network, problem, schedule)


def training_diagnostics(training: TrainingCurve) -> dict[str, float]:
    """Return epochs trained, the best of them, and the mean squared error on auxiliary_val after it."""
    return {
        "epochs": float(training.periods),
        "best_epoch": float(training.best),
        "auxiliary_val_mse": min(training.errors),
    }


def psnr_curve(training: TrainingCurve) -> tuple[float, ...]:
    """Return the mean squared errors as decibels, at most 100."""
    return tuple(-10 * math.log10(max(error, 1e-10)) for error in training.errors)


@torch.no_grad()
def apply_in_chunks(function: Callable[..., Tensor], rows: Sequence[Tensor], device: torch.device) -> Tensor:
    """Apply ``function`` to the rows in chunks on ``device`` and gather the results on the CPU."""
    widest = max(rows, key=lambda row: row[:1].numel())
    chunks = row_chunks(widest, min(CHUNK, 512 * widest[:1].numel() * widest.element_size()))
    return torch.cat([function(*(row[chunk].to(device) for row in rows)).cpu() for chunk in chunks])
