"""Who may read which image: the parts of a set, and smaller sets of the same kind.

Everything here is drawn with fixed seeds, so a split never changes with the seed of a run. Only the raw stream of
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

SHARES = {"private": 70, "auxiliary": 15, "auxiliary_val": 3, "tuning": 3, "test": 9}
"""Per cent of a set in each part, in layout ``sparseguard``."""

PAPER_SHARES = {"private": 70, "auxiliary": 27, "auxiliary_val": 3}
_PARTITION_STREAM, _ORDER_STREAM, _SUBSET_STREAM = 1, 2, 3


def partition(images: ImageSet, *, name: str, layout: Layout, flips_keep_class: bool) -> Splits:
    """Part a set so that every part has the classes in the proportions of the whole, in shuffled order.

    Args:
        images: the whole set.
        name: the set's name, as messages and records call it.
        layout: ``sparseguard`` uses every image once: 70 % private, 15 auxiliary, 3 auxiliary_val, 3 select,
            9 test. ``paper`` gives the attacker everything that is not private (a tenth of it is auxiliary_val), and
            both select and test are all of those images again: they overlap with what the attacker has.
        flips_keep_class: whether the mirror image of every image belongs to the same class.

    Raises:
        DataError: when the set is too small for every part to have an image.
    """
    labels = images.labels.numpy()
    if layout == "paper":
        parts = partition_index(labels, PAPER_SHARES)
        rest = np.concatenate([parts["auxiliary"], parts["auxiliary_val"]])
        parts |= {"tuning": rest, "test": rest}
    else:
        parts = partition_index(labels, SHARES)
    selected = {part: images.select(torch.from_numpy(index)) for part, index in parts.items()}
    return Splits(name=name, layout=layout, flips_keep_class=flips_keep_class, **selected)


def balanced_subset(images: ImageSet, size: int, *, what: str) -> ImageSet:
    """Return ``size`` of the images, as evenly over the classes as they allow, in the order they had.

    The subset of one size contains the subset of every smaller size.

    Args:
        images: the images to draw from.
        size: how many, at least one a class.
        what: what a message calls the images.

    Raises:
        DataError: when there are fewer images than ``size``, or fewer wanted than there are classes.

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
    """Order ``(n,)`` labels so that every beginning of the order has all classes equally often, while they last."""
    order = shuffled(len(labels), _SUBSET_STREAM)
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rank[order[labels[order] == label]] = np.arange(np.count_nonzero(labels == label))
    return order[np.argsort(rank[order], kind="stable")]


def partition_index(labels: npt.NDArray[np.integer], shares: dict[str, int]) -> dict[str, Index]:
    """Deal out ``(n,)`` labels by shares: each part's indices, shuffled, with the classes in the same proportions.

    Part sizes are the shares of n, and a class's place in a part its share of what is left, both rounded by largest
    remainder; classes of the same size differ by one image at most.
    """
    order = shuffled(len(labels), _PARTITION_STREAM)
    pools = [order[labels[order] == label] for label in np.unique(labels)]
    left = np.array([len(pool) for pool in pools], dtype=np.int64)
    part_of = np.empty(len(labels), dtype=np.int64)
    for part, size in enumerate(largest_remainder(np.array(list(shares.values())), len(labels))):
        taken = largest_remainder(left, int(size))
        for pool, rest, count in zip(pools, left, taken, strict=True):
            part_of[pool[len(pool) - rest : len(pool) - rest + count]] = part
        left -= taken
    order = shuffled(len(labels), _ORDER_STREAM)
    return {name: order[part_of[order] == part] for part, name in enumerate(shares)}


def largest_remainder(weights: Index, total: int) -> Index:
    """Round ``total`` times each weight's share to integers that add up to ``total``.

    Source: Hamilton's method of apportionment; ties go to the first.

    Example:
        >>> largest_remainder(np.array([70, 15, 3, 3, 9]), 101).tolist()
        [71, 15, 3, 3, 9]
    """
    whole, remainder = np.divmod(weights * total, max(int(weights.sum()), 1))
    whole[np.argsort(-remainder, kind="stable")[: total - int(whole.sum())]] += 1
    return whole


def shuffled(count: int, stream: int) -> Index:
    """Return 0 to ``count`` - 1 in an order that depends on ``stream`` alone."""
    return np.argsort(np.random.PCG64([0, stream]).random_raw(count), kind="stable")
