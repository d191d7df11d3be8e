"""Exact copies of images, within a split and across splits: they make attacks look better than they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseguard.types import Splits

Digests = npt.NDArray[Any]


def image_digest(pixels: npt.NDArray[np.generic]) -> bytes:
    """Return 16 bytes that are equal for equal images and, as good as surely, different for others."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()


def first_splits(digests: Digests, split_of: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return for each image ``(n,)`` the first split that holds an equal one, its own at the latest."""
    _, group = np.unique(digests, return_inverse=True)
    first = np.full(group.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, group, split_of.astype(np.int64))
    return first[group]


def count_copies(
    digests: Digests, split_of: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], names: Sequence[str]
) -> dict[str, Any]:
    """Count exact copies.

    Args:
        digests: ``(n,)`` from `image_digest`.
        split_of: ``(n,)`` indices into ``names``.
        labels: ``(n,)``.
        names: of splits that share no image by themselves.

    Returns:
        ``across``: for ``a > b``, number of images of split b that have a copy in split a. ``images_across``: number of
        images that have a copy in an earlier split. ``within``: number of images of each split that repeat an earlier
        one in it. ``other_label``: number of images that have a copy of another class.
    """
    _, group = np.unique(digests, return_inverse=True)
    groups = int(group.max(initial=-1)) + 1
    counts = np.zeros((len(names), groups), dtype=np.int64)
    np.add.at(counts, (split_of, group), 1)
    across = {
        f"{names[a]} > {names[b]}": int(counts[b][counts[a] > 0].sum())
        for a in range(len(names))
        for b in range(a + 1, len(names))
    }
    low, high = np.full(groups, np.iinfo(np.int64).max), np.full(groups, -1)
    np.minimum.at(low, group, labels)
    np.maximum.at(high, group, labels)
    return {
        "across": across,
        "images_across": int((first_splits(digests, split_of) < split_of).sum()),
        "within": {name: int(np.maximum(counts[k] - 1, 0).sum()) for k, name in enumerate(names)},
        "other_label": int((low != high)[group].sum()),
    }


def count_split_copies(splits: Splits) -> dict[str, Any]:
    """Count exact copies in and across splits; in layout ``paper`` the attacker's are not counted again."""
    sets = splits.by_name()
    if splits.layout == "paper":
        sets = {name: images for name, images in sets.items() if name not in ("tuning", "test")}
    digests = [image_digest(image.numpy()) for images in sets.values() for image in images.pixels]
    return count_copies(
        np.array(digests, dtype="V16"),
        np.repeat(np.arange(len(sets)), [len(images) for images in sets.values()]),
        np.concatenate([images.labels.numpy() for images in sets.values()]),
        list(sets),
    )
