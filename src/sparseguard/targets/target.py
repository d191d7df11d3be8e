"""A trained, released target model."""

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
        """How many parameters the model has."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @torch.no_grad()
    def wrong(self, images: ImageSet, device: torch.device, seed: int, batch: int = 512) -> list[int]:
        """Return the places of the images classified wrong, with any noise of the defense drawn from ``seed``."""
        found = []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for index in torch.arange(len(images)).split(batch):
                logits = self.model(images.batch(index).to(device))
                found.append(logits.argmax(1) != images.labels[index].to(device))
        places: list[int] = torch.cat(found).nonzero().flatten().tolist()
        return places

    def accuracy(self, images: ImageSet, device: torch.device, seed: int) -> float:
        """Return the share of ``images`` classified right."""
        return 1 - len(self.wrong(images, device, seed)) / len(images)
