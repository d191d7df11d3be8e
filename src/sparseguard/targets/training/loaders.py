"""Batches of the private images, and which of them are held out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sparseguard.core.seeding import derive
from sparseguard.types import ImageSet


class Served(tuple[Tensor, Tensor]):
    """A batch ``(images, labels)`` that remembers which rows of the training images it holds.

    A loader made by `Defense.wrap` may pass it on. Batches it makes itself need not remember.
    """

    rows: Tensor
    _version: int

    def __new__(cls, images: Tensor, labels: Tensor, rows: Tensor) -> Served:
        """Make a pair and note the rows."""
        made = super().__new__(cls, (images, labels))
        made.rows, made._version = rows, images._version
        return made

    @property
    def written_to(self) -> bool:
        """Whether the images were changed in place since."""
        return self[0]._version != self._version

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied, or sent by a loader's worker; a batch that was changed arrives as a plain pair."""
        return (tuple, (tuple(self),)) if self.written_to else (Served, (*self, self.rows))


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Serves whole batches, so that loading costs one indexing a batch."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images.batch(torch.tensor([index]))[0], self.images.labels[index]

    def __getitems__(self, indices: list[int]) -> Served:
        index = torch.tensor(indices, dtype=torch.int64)
        return Served(self.images.batch(index), self.images.labels[index], index)


def _as_served(batch: Any) -> Any:
    return batch


def loader(images: ImageSet, batch_size: int, generator: torch.Generator) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a shuffling loader whose batches are `Served`."""
    size = min(batch_size, len(images))
    return DataLoader(
        _Batches(images),
        batch_size=size,
        shuffle=True,
        drop_last=len(images) % size == 1,  # batch normalization cannot train on a single image
        generator=generator,
        collate_fn=_as_served,
    )


def hold_out(private: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """Part the private images into a seeded tenth for early stopping and the rest to train on."""
    order = torch.randperm(len(private), generator=torch.Generator().manual_seed(derive(purpose="hold-out", seed=seed)))
    count = held_out_count(len(private))
    return private.select(order[:count]), private.select(order[count:])


def held_out_count(private: int) -> int:
    """Return how many of ``private`` images are held out."""
    return max(1, private // 10)
