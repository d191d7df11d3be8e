"""What a defense is: settings with hooks, all with defaults, of which most defenses override one or two."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseguard.stages import Blueprint, StagedModel
from sparseguard.types import ImageSet, Phase, Step

State = Mapping[str, Tensor]
"""What `Defense.prepare` learned. It is stored apart from the target and never released with it."""

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """What a defense may learn from before the target is trained.

    Args:
        private: the images the target will train on.
        public: attacker-side images; whatever is learned here leaks nothing private.
        blueprint: the undefended model.
        tap: the tap under attack, for defenses that act at the cut.
        seed: derived for this target.
    """

    private: ImageSet
    public: ImageSet
    blueprint: Blueprint
    tap: str
    seed: int


class Defense(ABC):
    """Settings of a defense and its hooks, in the order they are called."""

    revision: ClassVar[int]
    summary: ClassVar[str]
    source: ClassVar[str]
    acts_at_cut: ClassVar[bool] = False
    """Whether the target must be trained for the tap under attack (then the tap is part of its key)."""

    randomizes: ClassVar[bool] = False
    """Whether two queries with the same image must be answered differently."""

    def prepare(self, context: Context) -> State:
        """Learn what the defense needs before the target exists."""
        return {}

    def place(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Return the blueprint with the defense's stages in place."""
        return blueprint

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Part the epochs of training; early stopping acts in the last phase."""
        return (Phase(name="train", epochs=epochs),)

    def wrap(
        self, model: StagedModel, optimizer: torch.optim.Optimizer, batches: Batches
    ) -> tuple[nn.Module, torch.optim.Optimizer, Batches]:
        """Exchange model, optimizer or batches for ones that train differently.

        A first sparse layer that does not learn is run once an image, instead of in every epoch, as long as the model
        is the one given and the batches come from the loader given.
        """
        return model, optimizer, batches

    def transform(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        state: State,
        epoch: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Change a training batch.

        Where the images stay as they are, return the tensor itself: a first sparse layer that does not learn is then
        not run on them again.
        """
        return images, labels

    def loss(self, step: Step) -> Tensor:
        """Return the loss of a batch, in nats."""
        return F.cross_entropy(step.logits, step.labels)

    def after_step(self, model: StagedModel) -> None:
        """Act on the model after each optimizer step."""
        return

    def release(self, model: StagedModel) -> None:
        """Change the trained model on its way out; what leaves here is what is attacked and measured."""
        return

    def inactive(self, model: StagedModel, images: Tensor) -> str | None:
        """Return why the released model does not defend these images, or None when it does."""
        return None
