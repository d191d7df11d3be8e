"""Splits as contiguous ranges of rows, groups kept together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseguard.data.splits import (
    PAPER_SPLIT_PERCENTAGES,
    SPLIT_PERCENTAGES,
    Index,
    Layout,
    fixed_order,
    largest_remainder,
    partition_index,
)

_GROUP_STREAM, _CLASS_STREAM = 4, 5


def assign_splits(
    labels: npt.NDArray[np.integer], groups: Sequence[str], layout: Layout, *, classes_in_all_splits: bool = False
) -> dict[str, Index]:
    """Assign images to splits that share none; return each split's indices.

    Without groups the splits are those of `sparseguard.data.splits.partition`. With groups, whole groups go, in
    shuffled order, each to the split that lacks most of its classes, relative to its size; the percentages are met as
    nearly as the groups' sizes let them.

    Args:
        labels: ``(n,)``.
        groups: ``(n,)`` names; an empty one is a group of its own.
        layout: ``paper`` gives the splits private, auxiliary and auxiliary_val.
        classes_in_all_splits: give every split at least one image of each class, and of the others what it still lacks;
            groups do not count then. A class needs as many images as there are splits.
    """
    percentages = split_percentages(layout)
    if classes_in_all_splits:
        return _assign_class_by_class(labels, percentages)
    members = _group_members(groups) if any(groups) else []
    if all(len(indices) == 1 for indices in members):
        return partition_index(labels, percentages)
    classes = int(labels.max()) + 1
    counts_of_classes = np.bincount(labels, minlength=classes)
    wanted = np.outer(list(percentages.values()), counts_of_classes) / sum(percentages.values())
    lacking = wanted.copy()
    split_of = np.empty(len(labels), dtype=np.int64)
    for number in fixed_order(len(members), _GROUP_STREAM):
        indices = members[number]
        counts = np.bincount(labels[indices], minlength=classes)
        split = int(np.argmax((lacking / np.maximum(wanted, 1e-9)) @ counts))
        split_of[indices] = split
        lacking[split] -= counts
    order = fixed_order(len(labels), _GROUP_STREAM)
    return {name: order[split_of[order] == split] for split, name in enumerate(percentages)}


def split_percentages(layout: Layout) -> dict[str, int]:
    """Return the per cent of a set in each of the splits that share no image."""
    return PAPER_SPLIT_PERCENTAGES if layout == "paper" else SPLIT_PERCENTAGES


def row_ranges(sizes: dict[str, int], layout: Layout) -> dict[str, tuple[int, int]]:
    """Return each split's first row and the row behind its last, the splits lying one after the other.

    Example:
        >>> row_ranges({"private": 7, "auxiliary": 2, "auxiliary_val": 1}, "paper")["test"]
        (7, 10)
    """
    ends = np.cumsum(list(sizes.values())).tolist()
    rows: dict[str, Any] = dict(zip(sizes, zip([0, *ends[:-1]], ends, strict=True), strict=True))
    if layout == "paper":
        rows |= dict.fromkeys(("tuning", "test"), (sizes["private"], ends[-1]))
    return rows


def _assign_class_by_class(labels: npt.NDArray[np.integer], percentages: Mapping[str, int]) -> dict[str, Index]:
    order = fixed_order(len(labels), _CLASS_STREAM)
    by_class = order[np.argsort(labels[order], kind="stable")]
    per_cent = np.array(list(percentages.values()))
    split_of = np.empty(len(labels), dtype=np.int64)
    for pool in np.split(by_class, np.cumsum(np.bincount(labels))[:-1]):
        lacking = np.maximum(per_cent * len(pool) - 100, 0)
        split_of[pool] = np.repeat(np.arange(len(per_cent)), 1 + largest_remainder(lacking, len(pool) - len(per_cent)))
    return {name: order[split_of[order] == split] for split, name in enumerate(percentages)}


def _group_members(groups: Sequence[str]) -> list[Index]:
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault((group and f"group {group}") or f"image {index}", []).append(index)
    return [np.array(indices, dtype=np.int64) for indices in members.values()]
