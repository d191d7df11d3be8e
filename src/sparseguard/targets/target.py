"""Target models as released, after training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import nn

from sparseguard.core.staged_model import StagedModel
from sparseguard.types import ImageSet


def state_hash(model: nn.Module) -> str:
    """Return the SHA-256 of every parameter and buffer of a model, names included."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """A model as released: in evaluation mode, its parameters frozen, its defense active.

    Args:
        model: the released model.
        taps: tap name to stage name.
        epochs: epochs trained.
        best_epoch: the epoch whose weights were kept.
    """

    model: StagedModel
    taps: dict[str, str]
    epochs: int
    best_epoch: int

    def __post_init__(self) -> None:
        """Freeze the model."""
        self.model.freeze()

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @torch.no_grad()
    def find_misclassified(self, images: ImageSet, device: torch.device, seed: int, batch: int = 512) -> list[int]:
        """Return the indices of the misclassified images; ``seed`` seeds the defense's noise."""
        errors = []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for index in torch.arange(len(images)).split(batch):
                logits = self.model(images.batch(index).to(device))
                errors.append(logits.argmax(1) != images.labels[index].to(device))
        indices: list[int] = torch.cat(errors).nonzero().flatten().tolist()
        return indices

    def accuracy(self, images: ImageSet, device: torch.device, seed: int) -> float:
        """Return the fraction of ``images`` classified correctly."""
        return 1 - len(self.find_misclassified(images, device, seed)) / len(images)
