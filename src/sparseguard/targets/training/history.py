"""History of a training: losses, best epoch and operations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sparseguard.core.errors import TrainingError


@dataclass(kw_only=True)
class TrainingHistory:
    """Losses, best epoch and operations of a training so far.

    Args:
        epoch: epochs done.
        best_epoch: the epoch with the lowest held-out loss, counted from 1.
        best_loss: that loss.
        stale: epochs since then.
        history: per epoch the training loss, and loss and accuracy on the held-out tenth.
        phase_flops: by phase the floating-point operations of its first training step, as run (see `count_flops`).
        epoch_flops: by epoch those of its phase.
        codes: of the first sparse layer: ``computed once``, or why they were not; empty where there is no such layer.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    phase_flops: dict[str, int] = field(default_factory=dict)
    epoch_flops: list[int] = field(default_factory=list)
    codes: str = ""

    @property
    def step_flops(self) -> int:
        """Operations of a training step, averaged over the epochs trained."""
        return sum(self.epoch_flops) // max(1, len(self.epoch_flops))

    def add_epoch(
        self, train_loss: float, held_out_loss: float, accuracy: float, label: str, *, in_last_phase: bool
    ) -> None:
        """Append an epoch; ``stale`` is 0 afterwards when its weights are the best so far."""
        if not (math.isfinite(train_loss) and math.isfinite(held_out_loss)):
            raise TrainingError(f"{label}, epoch {self.epoch + 1}: the loss is not finite. Try a lower training.lr.")
        self.epoch += 1
        self.stale += 1
        if held_out_loss < self.best_loss or not in_last_phase:
            self.best_epoch, self.stale = self.epoch, 0
            self.best_loss = held_out_loss if in_last_phase else math.inf
        self.history.append({"train_loss": train_loss, "held_out_loss": held_out_loss, "held_out_accuracy": accuracy})
