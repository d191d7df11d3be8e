"""What a defense is: settings with hooks, all with defaults, of which most defenses override one or two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparseguard.core.config import describe
from sparseguard.core.progress import Progress, Silent
from sparseguard.core.staged_model import Blueprint, StagedModel
from sparseguard.types import BatchContext, EpochContext, ImageSet, Phase

State = Mapping[str, Tensor]
"""What a defense learned beside the model. It is stored apart from the target and never released with it."""

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much training is to come.

    Args:
        images: how many are trained on.
        batch_size: images a step.
        epochs: at most.
    """

    images: int
    batch_size: int
    epochs: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """What a defense may learn from before the target is trained.

    Args:
        private: the images the target will train on.
        public: attacker-side images; whatever is learned here leaks nothing private.
        blueprint: the undefended model.
        seed: derived for this target.
        budget: of the training to come.
        device: where to compute.
        progress: told how far it is.
        label: what it is called there.
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
    """A network that is trained beside the target, such as an adversary, and never released.

    Its weights and its optimizer's state are part of the training's checkpoint.
    """

    optimizer: torch.optim.Optimizer

    @abstractmethod
    def learn(self, batch: BatchContext) -> None:
        """Take a step of its own on a batch, before the target does; the target gets no gradient from it."""


class Defense(ABC):
    """Settings of a defense and its hooks, in the order they are called."""

    revision: ClassVar[int]
    summary: ClassVar[str]
    source: ClassVar[str]
    acts_at_tap: ClassVar[bool] = False
    """Whether the target must be trained for the tap under attack (then the tap is part of its key)."""

    randomizes: ClassVar[bool] = False
    """Whether two queries with the same image must be answered differently."""

    chooses_epoch: ClassVar[bool] = True
    """Whether the weights of the epoch with the lowest held-out loss are kept, and training may stop early. Those who
    count every look at private images keep the last epoch's."""

    def find_unaccounted_access(self) -> str | None:
        """Return what the target gets from private images other than by gradients of single images; None: nothing.

        DP-SGD bounds what gradients of single images give away. It cannot be combined with a defense that learns from
        private images in another way.
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
        """Return the blueprint with the defense's stages in place."""
        return blueprint

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Part the epochs of training; early stopping acts in the last phase."""
        return (Phase(name="train", epochs=epochs),)

    def build_auxiliary_network(self, model: StagedModel, tap_stage: str, images: Tensor) -> AuxiliaryNetwork | None:
        """Return a network to be trained beside the target, sized for what its stage ``tap_stage`` gives for ``images``.

        Its weights are drawn from torch's global generator, which is seeded for it.
        """
        return None

    @contextmanager
    def wrap(
        self, model: StagedModel, optimizer: torch.optim.Optimizer, batches: Batches, state: State
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, Batches]]:
        """Exchange model, optimizer or batches, for as long as training lasts, for ones that train differently.

        A first sparse layer that does not learn is run once an image, instead of in every epoch, as long as the model
        is the one given and the batches come from the loader given.
        """
        yield model, optimizer, batches

    def on_epoch_start(self, context: EpochContext) -> State:
        """Look at the model before an epoch; what is returned joins the state, and the training's checkpoint."""
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

        Where the images stay as they are, return the tensor itself: a first sparse layer that does not learn is then
        not run on them again.
        """
        return images, labels

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return what is added to the cross-entropy of a batch's own images, in nats; None: nothing."""
        return None

    def loss(self, batch: BatchContext) -> Tensor:
        """Return the loss of a batch, in nats: cross-entropy and `penalty`."""
        penalty, loss = self.penalty(batch), batch.cross_entropy()
        return loss if penalty is None else loss + penalty

    def on_step_end(self, model: StagedModel) -> None:
        """Act on the model after each optimizer step."""
        return

    def release(self, model: StagedModel) -> None:
        """Change the trained model on its way out; what leaves here is what is attacked and measured."""
        return

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Return why the released model does not defend these images, or None when it does."""
        return None

    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return figures of the released model that belong into the record, such as an epsilon.

        Args:
            model: as released.
            images: attacker-side images ``(n, c, h, w)``.
            state: what the defense learned.
        """
        return {}
