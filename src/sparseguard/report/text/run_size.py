"""How large a run was, in words."""

from __future__ import annotations

from collections.abc import Sequence

from sparseguard.record import Record

HANDED_OVER = "audit"
"""The layout of audits, whose models come trained."""


def scale(records: Sequence[Record]) -> str:
    """Return how large the run was, one sentence a dataset: images by part, epochs, seeds."""
    datasets = sorted({record.case.dataset for record in records})
    return " ".join(_dataset_scale([one for one in records if one.case.dataset == name]) for name in datasets)


def _dataset_scale(records: Sequence[Record]) -> str:
    largest = max((record.data.sizes for record in records), key=len)
    sizes = ", ".join(f"{size:,} {part.replace('_', '-')}" for part, size in largest.items())
    trained = [record for record in records if record.data.layout != HANDED_OVER]
    epochs = {record.config.training.epochs for record in trained if record.config.training}
    layouts = {record.data.layout for record in records} - {None}
    seeds = sorted({record.case.seed for record in records})
    layout = f" (layout {', '.join(sorted(map(str, layouts)))})" if layouts else ""
    return (
        f"{records[0].case.dataset}{layout}: "
        + (f"{sizes} images; " if sizes else "sizes not recorded; ")
        + (f"{' or '.join(map(str, sorted(epochs)))} epochs at most; " if epochs else "")
        + f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}."
    )
