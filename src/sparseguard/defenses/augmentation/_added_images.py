"""What defenses share that add images behind the private ones of a batch."""

from __future__ import annotations

from abc import ABC

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sparseguard import generators
from sparseguard.defenses.base import Defense
from sparseguard.types import as_unit_float


class AddsImages(Defense, ABC):
    """A defense that adds images to batches; only one of them can tell which ones are its own."""

    def find_unaccounted_access(self) -> str | None:
        """Say what the number of images tells."""
        return "it adds images to batches, and their number tells how many private ones there are"

    def revisions(self) -> list[int]:
        """Return its revision, and that of the generators."""
        return [self.revision, generators.REVISION]

    def find_conflict(self, other: Defense) -> str | None:
        """Refuse another one that adds images."""
        return "both add images to batches" if isinstance(other, AddsImages) else None


def as_bytes(images: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """Return images in [0, 1] in 256 levels."""
    return (images * 255).round().byte()


def drawn(
    pool: UInt8[Tensor, "p c h w"], labels: Int[Tensor, " p"], count: int, generator: torch.Generator, like: Tensor
) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, " n"]]:
    """Return ``count`` images of the pool and their labels, drawn with replacement, on the device of ``like``."""
    index = torch.randint(len(pool), (count,), generator=generator).to(pool.device)
    return as_unit_float(pool[index]).to(like.device), labels[index].to(like.device)
