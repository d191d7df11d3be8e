"""Batches of the private images, and the held-out tenth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sparseguard.core.seeding import derive
from sparseguard.types import ImageSet


class IndexedBatch(tuple[Tensor, Tensor]):
    """A batch ``(images, labels)`` with the indices of its rows in the training images.

    A loader that `Defense.wrap` returns may pass it on; its own batches need no indices.
    """

    rows: Tensor
    _version: int

    def __new__(cls, images: Tensor, labels: Tensor, rows: Tensor) -> IndexedBatch:
        """Return the pair with its rows."""
        batch = super().__new__(cls, (images, labels))
        batch.rows, batch._version = rows, images._version
        return batch

    @property
    def modified(self) -> bool:
        """Whether the images were changed in place since."""
        return self[0]._version != self._version

    def __reduce__(self) -> tuple[Any, ...]:
        """Support copying and sending by a loader's worker; a modified batch arrives as a plain pair."""
        return (tuple, (tuple(self),)) if self.modified else (IndexedBatch, (*self, self.rows))


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Whole batches, so that loading costs one indexing a batch."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images.batch(torch.tensor([index]))[0], self.images.labels[index]

    def __getitems__(self, indices: list[int]) -> IndexedBatch:
        index = torch.tensor(indices, dtype=torch.int64)
        return IndexedBatch(self.images.batch(index), self.images.labels[index], index)


def _collate(batch: Any) -> Any:
    return batch


def make_loader(images: ImageSet, batch_size: int, generator: torch.Generator) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a shuffling loader of `IndexedBatch` values."""
    size = min(batch_size, len(images))
    return DataLoader(
        _Batches(images),
        batch_size=size,
        shuffle=True,
        drop_last=len(images) % size == 1,  # batch normalization cannot train on a single image
        generator=generator,
        collate_fn=_collate,
    )


def hold_out(private: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split the private images into a seeded tenth for early stopping and the rest to train on."""
    order = torch.randperm(len(private), generator=torch.Generator().manual_seed(derive(purpose="hold-out", seed=seed)))
    count = count_held_out(len(private))
    return private.select(order[:count]), private.select(order[count:])


def count_held_out(private: int) -> int:
    """Return how many of ``private`` images are held out."""
    return max(1, private // 10)
