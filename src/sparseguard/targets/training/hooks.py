"""What the training loop asks of a defense."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sparseguard.core.staged_model import StagedModel
from sparseguard.types import Moment, Phase, Step


@runtime_checkable
class Trainee(Protocol):
    """The hooks of a defense that this loop calls (see `sparseguard.defenses.base.Defense`)."""

    @property
    def chooses_epoch(self) -> bool:
        """Whether the best epoch's weights are kept."""
        ...

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Part the epochs."""
        ...

    def companion(self, model: StagedModel, cut: str, images: Tensor) -> Any:
        """Return what is trained beside the model."""
        ...

    def wrap(
        self, model: StagedModel, optimizer: torch.optim.Optimizer, batches: Any, state: Mapping[str, Tensor]
    ) -> AbstractContextManager[tuple[Any, Any, Any]]:
        """Exchange model, optimizer or batches."""
        ...

    def before_epoch(self, moment: Moment) -> Mapping[str, Tensor]:
        """Look at the model between epochs."""
        ...

    def transform(
        self, images: Tensor, labels: Tensor, *, state: Mapping[str, Tensor], epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Change a batch."""
        ...

    def loss(self, step: Step) -> Tensor:
        """Return a batch's loss."""
        ...

    def after_step(self, model: StagedModel) -> None:
        """Act after an optimizer step."""
        ...
