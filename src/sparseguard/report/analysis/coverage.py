"""Whether a setting keeps the accuracy, on images that neither training nor the final scores use."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sparseguard.record import Record
from sparseguard.report.analysis.per_image import same_images
from sparseguard.report.text.wording import UNDEFENDED
from sparseguard.stats import NonInferiority, noninferiority_test

NOT_RECORDED = "accuracy on select was not recorded; records have it from version 3 of their format on"


def choosing_parts(records: Sequence[Record]) -> tuple[str, ...]:
    """Return the parts that settings are chosen on; in layout ``paper``, select holds auxiliary_val already."""
    return ("tuning",) if any(one.data.layout == "paper" for one in records) else ("tuning", "auxiliary_val")


def has(record: Record, part: str) -> bool:
    """Return whether a record tells which images of a part were classified wrong."""
    return record.target is not None and part in record.target.misclassified


def kept(pairs: Sequence[tuple[Record, Record]], parts: Sequence[str], margin: float) -> NonInferiority | str:
    """Return the test of a setting beside none, or why there is none.

    Of several seeds the counts are averaged, not summed: the images are the same, and a second model that is asked
    about them is no second set of images.

    Args:
        pairs: the setting's record and that of none, a pair a seed.
        parts: as `choosing_parts` says.
        margin: how much accuracy may be lost.
    """
    if not pairs:
        return f"no seed in common with {UNDEFENDED}"
    counts = []
    for own, other in pairs:
        if not all(has(one, part) for one in (own, other) for part in parts):
            return NOT_RECORDED
        if not all(same_images(own, other, part) and _size(own, part) == _size(other, part) for part in parts):
            return f"not the same images as {UNDEFENDED}"
        counts.append([_counts(own, other, part) for part in parts])
    n, *others = {sum(count for _, _, count in by_part) for by_part in counts}
    if others or not n:
        return "not as many images with every seed"
    lost, gained = (statistics.fmean(sum(one[at] for one in by_part) for by_part in counts) for at in (0, 1))
    return noninferiority_test(lost, gained, n, margin)


def _counts(own: Record, other: Record, part: str) -> tuple[int, int, int]:
    """Return how many images only the other classifies right, how many only its own does, and how many there are."""
    ours, theirs = _wrong(own, part), _wrong(other, part)
    return len(ours - theirs), len(theirs - ours), _size(own, part)


def _wrong(record: Record, part: str) -> set[int]:
    return set(record.target.misclassified[part]) if record.target else set()


def _size(record: Record, part: str) -> int:
    return int(record.data.sizes.get(part, 0))
