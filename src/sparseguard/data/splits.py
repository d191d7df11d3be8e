"""Splits of a data set, and balanced subsets.

All draws have fixed seeds, so a split never changes with the seed of a run. Only the raw stream of
PCG64 is used, which NumPy promises to keep across versions and platforms; it makes no such promise for `permutation`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from sparseguard.core.errors import DataError
from sparseguard.types import ImageSet, Splits

Layout = Literal["sparseguard", "paper"]
Index = npt.NDArray[np.int64]

SPLIT_PERCENTAGES = {"private": 70, "auxiliary": 15, "auxiliary_val": 3, "tuning": 3, "test": 9}
"""Per cent of a set in each split, in layout ``sparseguard``."""

PAPER_SPLIT_PERCENTAGES = {"private": 70, "auxiliary": 27, "auxiliary_val": 3}
_PARTITION_STREAM, _ORDER_STREAM, _SUBSET_STREAM = 1, 2, 3


def partition(images: ImageSet, *, name: str, layout: Layout, flips_keep_class: bool) -> Splits:
    """Split a set so that every split has the classes in the proportions of the whole, in shuffled order.

    Args:
        images: the whole set.
        name: the set's name, as messages and records call it.
        layout: ``sparseguard`` uses every image once: 70 % private, 15 auxiliary, 3 auxiliary_val, 3 tuning, 9 test.
            ``paper`` gives the attacker everything that is not private (a tenth of it is auxiliary_val), and both
            tuning and test are all of those images again: they overlap with the attacker's.
        flips_keep_class: whether the mirror image of every image belongs to the same class.

    Raises:
        DataError: when the set is too small for every split to have an image.
    """
    labels = images.labels.numpy()
    if layout == "paper":
        indices = partition_index(labels, PAPER_SPLIT_PERCENTAGES)
        rest = np.concatenate([indices["auxiliary"], indices["auxiliary_val"]])
        indices |= {"tuning": rest, "test": rest}
    else:
        indices = partition_index(labels, SPLIT_PERCENTAGES)
    subsets = {split: images.select(torch.from_numpy(index)) for split, index in indices.items()}
    return Splits(name=name, layout=layout, flips_keep_class=flips_keep_class, **subsets)


def balanced_subset(images: ImageSet, size: int, *, what: str) -> ImageSet:
    """Return ``size`` of the images, as evenly over the classes as they allow, in the order they had.

    The subset of one size contains the subset of every smaller size.

    Args:
        images: the images to draw from.
        size: number of images, at least one a class.
        what: name of the images in messages.

    Raises:
        DataError: when ``size`` is above the number of images, or below that of classes.

    Example:
        >>> images = ImageSet(pixels=torch.zeros(6, 1, 2, 2), labels=torch.tensor([0, 0, 0, 0, 1, 1]),
        ...                   classes=("cat", "dog"))
        >>> balanced_subset(images, 4, what="pets").labels
        tensor([0, 0, 1, 1])
    """
    if size > len(images):
        raise DataError(f"{what}: asked for {size:,} images, there are {len(images):,}. Ask for at most that many.")
    if size < len(images.classes):
        raise DataError(
            f"{what}: asked for {size:,} images of {len(images.classes)} classes. Ask for one of each or more."
        )
    return images.select(torch.from_numpy(np.sort(balanced_index(images.labels.numpy())[:size])))


def balanced_index(labels: npt.NDArray[np.integer]) -> Index:
    """Return an order of ``(n,)`` labels whose every beginning has all classes equally often, while they last."""
    order = fixed_order(len(labels), _SUBSET_STREAM)
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rank[order[labels[order] == label]] = np.arange(np.count_nonzero(labels == label))
    return order[np.argsort(rank[order], kind="stable")]


def partition_index(labels: npt.NDArray[np.integer], percentages: dict[str, int]) -> dict[str, Index]:
    """Split ``(n,)`` labels: return each split's indices, shuffled, with the classes in the same proportions.

    Split sizes are the percentages of n, and the images of a class in a split its fraction of what is left, both
    rounded by largest remainder; classes of the same size differ by one image at most.
    """
    order = fixed_order(len(labels), _PARTITION_STREAM)
    pools = [order[labels[order] == label] for label in np.unique(labels)]
    left = np.array([len(pool) for pool in pools], dtype=np.int64)
    split_of = np.empty(len(labels), dtype=np.int64)
    for split, size in enumerate(largest_remainder(np.array(list(percentages.values())), len(labels))):
        counts = largest_remainder(left, int(size))
        for pool, rest, count in zip(pools, left, counts, strict=True):
            split_of[pool[len(pool) - rest : len(pool) - rest + count]] = split
        left -= counts
    order = fixed_order(len(labels), _ORDER_STREAM)
    return {name: order[split_of[order] == split] for split, name in enumerate(percentages)}


def largest_remainder(weights: Index, total: int) -> Index:
    """Round ``total`` times each weight's fraction to integers that add up to ``total``.

    Source: Hamilton's method of apportionment; ties go to the first.

    Example:
        >>> largest_remainder(np.array([70, 15, 3, 3, 9]), 101).tolist()
        [71, 15, 3, 3, 9]
    """
    whole, remainder = np.divmod(weights * total, max(int(weights.sum()), 1))
    whole[np.argsort(-remainder, kind="stable")[: total - int(whole.sum())]] += 1
    return whole


def fixed_order(count: int, stream: int) -> Index:
    """Return 0 to ``count`` - 1 in an order that depends on ``stream`` alone."""
    return np.argsort(np.random.PCG64([0, stream]).random_raw(count), kind="stable")
