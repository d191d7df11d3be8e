"""Interface of defenses: settings with hooks, all with defaults, of which most defenses override one or two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparseguard.core.config import describe
from sparseguard.core.progress import Progress, Silent
from sparseguard.core.staged_model import Blueprint, StagedModel
from sparseguard.types import BatchContext, EpochContext, ImageSet, Phase

State = Mapping[str, Tensor]
"""Tensors that a defense learned in addition to the model. They are stored apart from it and never released."""

Batches = Iterable[tuple[Tensor, Tensor]]

NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Amount of training to come.

    Args:
        images: number of training images.
        batch_size: images a step.
        epochs: at most.
    """

    images: int
    batch_size: int
    epochs: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Data and settings from which a defense may learn before the target is trained.

    Args:
        private: the images the target will train on.
        auxiliary: the attacker's images; learning from these reveals nothing private.
        blueprint: the undefended model.
        seed: derived for this target.
        budget: of the training to come.
        device: where to compute.
        progress: shows how far the work is.
        label: the task's name in ``progress``.
    """

    private: ImageSet
    auxiliary: ImageSet
    blueprint: Blueprint
    seed: int
    budget: Budget
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = field(default_factory=Silent)
    label: str = "prepare"


class AuxiliaryNetwork(nn.Module, ABC):
    """A network that is trained with the target, such as an adversary, and never released.

    Its weights and its optimizer's state are part of the training's checkpoint.
    """

    optimizer: torch.optim.Optimizer

    @abstractmethod
    def learn(self, batch: BatchContext) -> None:
        """Take its own optimizer step on a batch before the target's step; the target gets no gradient from it."""


class Defense(ABC):
    """Settings of a defense and its hooks, in the order of their calls."""

    revision: ClassVar[int]
    summary: ClassVar[str]
    source: ClassVar[str]
    acts_at_tap: ClassVar[bool] = False
    """Whether the target must be trained for the tap under attack (then the tap is part of its key)."""

    randomizes: ClassVar[bool] = False
    """Whether two queries with the same image must get different answers."""

    chooses_epoch: ClassVar[bool] = True
    """Whether training keeps the weights of the epoch with the lowest held-out loss and may stop early.

    Defenses that account for every use of private images keep the weights of the last epoch.
    """

    is_control: ClassVar[bool] = False
    """Whether it is a control: a step of other defenses alone, no defense in its own right."""

    quick_settings: ClassVar[Mapping[str, Any]] = NO_SETTINGS
    """Settings with which it is prepared and trained in about a second, for tests; others keep their defaults."""

    def find_unaccounted_access(self) -> str | None:
        """Return how the target learns from private images other than by gradients of single images; None: not at all.

        DP-SGD bounds the information in gradients of single images. It cannot be combined with a defense that learns
        from private images in another way.
        """
        return None

    def find_conflict(self, other: Defense) -> str | None:
        """Return why this defense cannot be combined with ``other``; None: it can."""
        return None

    def describe(self) -> dict[str, Any]:
        """Return the settings as plain values, as in records and keys."""
        return describe(self)

    def revisions(self) -> list[int]:
        """Return the revisions its results depend on."""
        return [self.revision]

    def prepare(self, context: Context) -> State:
        """Learn what the defense needs before the target exists."""
        return {}

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Return the blueprint with the defense's stages."""
        return blueprint

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Split the epochs of training into phases; early stopping acts in the last phase."""
        return (Phase(name="train", epochs=epochs),)

    def build_auxiliary_network(self, model: StagedModel, tap_stage: str, images: Tensor) -> AuxiliaryNetwork | None:
        """Return a network to train with the target, sized for the output of stage ``tap_stage`` for ``images``.

        Its weights are drawn from torch's global generator, which is seeded for it.
        """
        return None

    @contextmanager
    def wrap(
        self, model: StagedModel, optimizer: torch.optim.Optimizer, batches: Batches, state: State
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, Batches]]:
        """Replace model, optimizer or batches, for as long as training lasts, by ones that train differently.

        A first sparse layer that does not learn is run once an image, instead of in every epoch, as long as model and
        loader stay the same.
        """
        yield model, optimizer, batches

    def on_epoch_start(self, context: EpochContext) -> State:
        """Learn from the model before an epoch; the returned tensors join the state and the checkpoint."""
        return {}

    def transform(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        state: State,
        epoch: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Change a training batch. Images may be added behind the batch's own (see `BatchContext.own_count`).

        Where the images stay as they are, return the same tensor: a first sparse layer that does not learn is then
        not run on them again.
        """
        return images, labels

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return the term to add to the cross-entropy of a batch's own images, in nats; None: nothing."""
        return None

    def loss(self, batch: BatchContext) -> Tensor:
        """Return the loss of a batch, in nats: cross-entropy and `penalty`."""
        penalty, loss = self.penalty(batch), batch.cross_entropy()
        return loss if penalty is None else loss + penalty

    def on_step_end(self, model: StagedModel) -> None:
        """Update the model after an optimizer step."""
        return

    def release(self, model: StagedModel) -> None:
        """Change the trained model before its release; attacks and measurements use the result."""
        return

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Return why the released model does not defend these images, or None when it does."""
        return None

    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return figures of the released model for the record, such as an epsilon.

        Args:
            model: as released.
            images: attacker-side images ``(n, c, h, w)``.
            state: tensors that the defense learned.
        """
        return {}
