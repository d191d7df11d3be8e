"""Training as a defense sees it: phases, batches, epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseguard.types.datasets import Images, ImageSet, Labels


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A period of training with a name, which the loss may depend on."""

    name: str
    epochs: int


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchContext:
    """A training batch with the model's outputs.

    Args:
        images: ``(n, c, h, w)`` in [0, 1], after the defense's `transform`.
        labels: ``(n,)``.
        outputs: every stage's output by its name.
        logits: the last stage's output.
        state: tensors that the defense learned in `prepare` and at the start of epochs.
        epoch: counted from 0 over all phases.
        phase: the current phase's name.
        own_count: number of the batch's own images, which come first; `transform` added the rest. None: all.
        elapsed_fraction: fraction of the epochs that are over, in [0, 1).
        tap_stage: name of the stage whose output the attacker sees; empty where none is named.
        auxiliary_network: network that is trained with the model and never released, where the defense has one.
        model: the model in training.
    """

    images: Images
    labels: Labels
    outputs: Mapping[str, Tensor]
    logits: Tensor
    state: Mapping[str, Tensor]
    epoch: int
    phase: str
    own_count: int | None = None
    elapsed_fraction: float = 0.0
    tap_stage: str = ""
    auxiliary_network: nn.Module | None = None
    model: nn.Module | None = None

    @property
    def own(self) -> slice:
        """Indices of the batch's own images."""
        return slice(0, self.own_count)

    def cross_entropy(self) -> Tensor:
        """Return the mean cross-entropy of the batch's own images, in nats; 0 for an empty batch."""
        logits, labels = self.logits[self.own], self.labels[self.own]
        return F.cross_entropy(logits, labels) if len(labels) else logits.sum()


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochContext:
    """A model between two epochs.

    Args:
        model: in evaluation mode; gradients of its parameters are the defense's to clear.
        images: training images.
        state: tensors that the defense learned so far.
        epoch: the next epoch, counted from 0.
        phase: its phase.
        starts_phase: whether it is the first of its phase.
        seed: derived for this epoch.
        device: where the model is.
    """

    model: nn.Module
    images: ImageSet
    state: Mapping[str, Tensor]
    epoch: int
    phase: str
    starts_phase: bool
    seed: int
    device: torch.device
