"""Shared code of defenses that add images to a batch."""

from __future__ import annotations

from abc import ABC

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sparseguard import generators
from sparseguard.defenses.base import Defense
from sparseguard.types import as_unit_float


class AddsImages(Defense, ABC):
    """A defense that adds images to batches; a combination can have one of them only."""

    def find_unaccounted_access(self) -> str | None:
        """Return that the number of images depends on private ones."""
        return "it adds images to batches, and their number depends on the number of private ones"

    def revisions(self) -> list[int]:
        """Return its revision and that of the generators."""
        return [self.revision, generators.REVISION]

    def find_conflict(self, other: Defense) -> str | None:
        """Refuse another one that adds images."""
        return "both add images to batches" if isinstance(other, AddsImages) else None


def to_bytes(images: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """Quantize images in [0, 1] to 256 levels."""
    return (images * 255).round().byte()


def draw_images(
    pool: UInt8[Tensor, "p c h w"], labels: Int[Tensor, " p"], count: int, generator: torch.Generator, like: Tensor
) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, " n"]]:
    """Draw ``count`` images of the pool with replacement; return them and their labels, on the device of ``like``."""
    index = torch.randint(len(pool), (count,), generator=generator).to(pool.device)
    return as_unit_float(pool[index]).to(like.device), labels[index].to(like.device)
