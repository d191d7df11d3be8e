"""Parts as contiguous ranges of rows, groups kept together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseguard.data.splits import PAPER_SHARES, SHARES, Index, Layout, largest_remainder, partition_index, shuffled

_GROUP_STREAM, _CLASS_STREAM = 4, 5


def order_of_parts(
    labels: npt.NDArray[np.integer], groups: Sequence[str], layout: Layout, *, classes_in_all_parts: bool = False
) -> dict[str, Index]:
    """Deal out images to parts that share none.

    Without groups the parts are those of `sparseguard.data.splits.partition`. With groups, whole groups go, in
    shuffled order, each to the part that lacks most of its classes, measured by what the part is to get of them; the
    shares are met as nearly as the groups' sizes let them.

    Args:
        labels: ``(n,)``.
        groups: ``(n,)`` names; an empty one is a group of its own.
        layout: ``paper`` gives the parts private, auxiliary and auxiliary_val.
        classes_in_all_parts: give every part at least one image of each class, and of the others what its share still
            lacks; groups do not count then. A class needs as many images as there are parts.
    """
    shares = shares_of(layout)
    if classes_in_all_parts:
        return _dealt_class_by_class(labels, shares)
    members = _members(groups) if any(groups) else []
    if all(len(places) == 1 for places in members):
        return partition_index(labels, shares)
    classes = int(labels.max()) + 1
    wanted = np.outer(list(shares.values()), np.bincount(labels, minlength=classes)) / sum(shares.values())
    lacking = wanted.copy()
    part_of = np.empty(len(labels), dtype=np.int64)
    for number in shuffled(len(members), _GROUP_STREAM):
        places = members[number]
        counts = np.bincount(labels[places], minlength=classes)
        part = int(np.argmax((lacking / np.maximum(wanted, 1e-9)) @ counts))
        part_of[places] = part
        lacking[part] -= counts
    order = shuffled(len(labels), _GROUP_STREAM)
    return {name: order[part_of[order] == part] for part, name in enumerate(shares)}


def shares_of(layout: Layout) -> dict[str, int]:
    """Return the per cent of a set in each of the parts that share no image."""
    return PAPER_SHARES if layout == "paper" else SHARES


def ranges(sizes: dict[str, int], layout: Layout) -> dict[str, tuple[int, int]]:
    """Return each part's first row and the row behind its last, the parts lying one after the other.

    Example:
        >>> ranges({"private": 7, "auxiliary": 2, "auxiliary_val": 1}, "paper")["test"]
        (7, 10)
    """
    ends = np.cumsum(list(sizes.values())).tolist()
    found: dict[str, Any] = dict(zip(sizes, zip([0, *ends[:-1]], ends, strict=True), strict=True))
    if layout == "paper":
        found |= dict.fromkeys(("tuning", "test"), (sizes["private"], ends[-1]))
    return found


def _dealt_class_by_class(labels: npt.NDArray[np.integer], shares: Mapping[str, int]) -> dict[str, Index]:
    order = shuffled(len(labels), _CLASS_STREAM)
    by_class = order[np.argsort(labels[order], kind="stable")]
    per_cent = np.array(list(shares.values()))
    part_of = np.empty(len(labels), dtype=np.int64)
    for pool in np.split(by_class, np.cumsum(np.bincount(labels))[:-1]):
        lacking = np.maximum(per_cent * len(pool) - 100, 0)
        part_of[pool] = np.repeat(np.arange(len(shares)), 1 + largest_remainder(lacking, len(pool) - len(shares)))
    return {name: order[part_of[order] == part] for part, name in enumerate(shares)}


def _members(groups: Sequence[str]) -> list[Index]:
    places: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        places.setdefault((group and f"group {group}") or f"image {index}", []).append(index)
    return [np.array(found, dtype=np.int64) for found in places.values()]
