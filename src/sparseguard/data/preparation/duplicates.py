"""Exact copies of images, within a part and across parts: they make attacks look better than they are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseguard.types import Splits

Digests = npt.NDArray[Any]


def digest(pixels: npt.NDArray[np.generic]) -> bytes:
    """Return 16 bytes that are equal for equal images and, as good as surely, different for others."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()


def first_parts(digests: Digests, part_of: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return for each image ``(n,)`` the first part that holds an equal one, its own at the latest."""
    _, group = np.unique(digests, return_inverse=True)
    first = np.full(group.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, group, part_of.astype(np.int64))
    return first[group]


def count_copies(
    digests: Digests, part_of: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], parts: Sequence[str]
) -> dict[str, Any]:
    """Count exact copies.

    Args:
        digests: ``(n,)`` from `digest`.
        part_of: ``(n,)`` indices into ``parts``.
        labels: ``(n,)``.
        parts: names of parts that share no image by themselves.

    Returns:
        ``across``: for ``a > b``, how many images of part b have a copy in part a. ``images_across``: how many images
        have a copy in an earlier part. ``within``: how many images of each part repeat an earlier one in it.
        ``other_label``: how many images have a copy of another class.
    """
    _, group = np.unique(digests, return_inverse=True)
    groups = int(group.max(initial=-1)) + 1
    there = np.zeros((len(parts), groups), dtype=np.int64)
    np.add.at(there, (part_of, group), 1)
    across = {
        f"{parts[a]} > {parts[b]}": int(there[b][there[a] > 0].sum())
        for a in range(len(parts))
        for b in range(a + 1, len(parts))
    }
    low, high = np.full(groups, np.iinfo(np.int64).max), np.full(groups, -1)
    np.minimum.at(low, group, labels)
    np.maximum.at(high, group, labels)
    return {
        "across": across,
        "images_across": int((first_parts(digests, part_of) < part_of).sum()),
        "within": {part: int(np.maximum(there[k] - 1, 0).sum()) for k, part in enumerate(parts)},
        "other_label": int((low != high)[group].sum()),
    }


def copies_in(splits: Splits) -> dict[str, Any]:
    """Count exact copies in and across the parts of a set; in layout ``paper`` the attacker's are not counted again."""
    parts = [part for part in splits.parts() if splits.layout != "paper" or part not in ("tuning", "test")]
    sets = [splits.parts()[part] for part in parts]
    digests = [digest(image.numpy()) for images in sets for image in images.pixels]
    return count_copies(
        np.array(digests, dtype="V16"),
        np.repeat(np.arange(len(parts)), [len(images) for images in sets]),
        np.concatenate([images.labels.numpy() for images in sets]),
        parts,
    )
