"""A test that a variant keeps the accuracy, on images that neither training nor the final scores use."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sparseguard.record import Record
from sparseguard.report.analysis.names import UNDEFENDED
from sparseguard.report.analysis.per_image import same_images
from sparseguard.stats import NonInferiority, noninferiority_test

NOT_RECORDED = "accuracy on the tuning split was not recorded; records have it from version 3 of their format on"


def choose_selection_splits(records: Sequence[Record]) -> tuple[str, ...]:
    """Return the splits that variants are selected on; in layout ``paper``, tuning holds auxiliary_val already."""
    paper = any(record.data.layout == "paper" for record in records)
    return ("tuning",) if paper else ("tuning", "auxiliary_val")


def has_answers(record: Record, split: str) -> bool:
    """Return whether a record says which images of a split were classified wrong."""
    return record.target is not None and split in record.target.misclassified


def check_accuracy(
    pairs: Sequence[tuple[Record, Record]], splits: Sequence[str], margin: float
) -> NonInferiority | str:
    """Return the test of a variant against none, or why there is no test.

    Of several seeds the counts are averaged, not summed: the images are the same, and a second model that classifies
    them is no second set of images.

    Args:
        pairs: the variant's record and that of none, a pair a seed.
        splits: as `choose_selection_splits` says.
        margin: how much accuracy may be lost.
    """
    if not pairs:
        return f"no seed in common with {UNDEFENDED}"
    counts = []
    for own, other in pairs:
        if not all(has_answers(record, split) for record in (own, other) for split in splits):
            return NOT_RECORDED
        if not all(same_images(own, other, split) and _size(own, split) == _size(other, split) for split in splits):
            return f"not the same images as {UNDEFENDED}"
        counts.append([_counts(own, other, split) for split in splits])
    n, *others = {sum(count for _, _, count in by_split) for by_split in counts}
    if others or not n:
        return "not as many images with every seed"
    lost = statistics.fmean(sum(count for count, _, _ in by_split) for by_split in counts)
    gained = statistics.fmean(sum(count for _, count, _ in by_split) for by_split in counts)
    return noninferiority_test(lost, gained, n, margin)


def _counts(own: Record, other: Record, split: str) -> tuple[int, int, int]:
    """Return how many images only the other classifies right, how many only its own does, and how many there are."""
    ours, theirs = _wrong(own, split), _wrong(other, split)
    return len(ours - theirs), len(theirs - ours), _size(own, split)


def _wrong(record: Record, split: str) -> set[int]:
    return set(record.target.misclassified[split]) if record.target else set()


def _size(record: Record, split: str) -> int:
    return record.data.sizes.get(split, 0)
