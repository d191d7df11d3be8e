"""Interface between the training loop and a defense."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sparseguard.core.staged_model import StagedModel
from sparseguard.types import BatchContext, EpochContext, Phase


@runtime_checkable
class TrainingHooks(Protocol):
    """The hooks of a defense that the training loop calls (see `sparseguard.defenses.base.Defense`)."""

    @property
    def chooses_epoch(self) -> bool:
        """Whether training keeps the weights of the best epoch."""
        ...

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Split the epochs into phases."""
        ...

    def build_auxiliary_network(self, model: StagedModel, tap_stage: str, images: Tensor) -> Any:
        """Return the network that is trained with the model, or None."""
        ...

    def wrap(
        self, model: StagedModel, optimizer: torch.optim.Optimizer, batches: Any, state: Mapping[str, Tensor]
    ) -> AbstractContextManager[tuple[Any, Any, Any]]:
        """Replace model, optimizer or batches during training."""
        ...

    def on_epoch_start(self, context: EpochContext) -> Mapping[str, Tensor]:
        """Learn from the model before an epoch."""
        ...

    def transform(
        self, images: Tensor, labels: Tensor, *, state: Mapping[str, Tensor], epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Change a batch."""
        ...

    def loss(self, batch: BatchContext) -> Tensor:
        """Return a batch's loss."""
        ...

    def on_step_end(self, model: StagedModel) -> None:
        """Act after an optimizer step."""
        ...
