"""The size of a run in words."""

from __future__ import annotations

from collections.abc import Sequence

from sparseguard.record import Record
from sparseguard.report.analysis.names import AUDIT_LAYOUT


def describe_run_size(records: Sequence[Record]) -> str:
    """Return the size of a run, one sentence a data set: images by split, epochs, seeds."""
    by_dataset: dict[str, list[Record]] = {}
    for record in records:
        by_dataset.setdefault(record.case.dataset, []).append(record)
    return " ".join(_describe_dataset(by_dataset[name]) for name in sorted(by_dataset))


def _describe_dataset(records: Sequence[Record]) -> str:
    largest = max((record.data.sizes for record in records), key=len)
    sizes = ", ".join(f"{size:,} {split.replace('_', '-')}" for split, size in largest.items())
    trained = [record for record in records if record.data.layout != AUDIT_LAYOUT]
    epochs = {record.config.training.epochs for record in trained if record.config.training}
    layouts = {record.data.layout for record in records} - {None}
    seeds = sorted({record.case.seed for record in records})
    layout = f" (layout {', '.join(sorted(filter(None, layouts)))})" if layouts else ""
    return (
        f"{records[0].case.dataset}{layout}: "
        + (f"{sizes} images; " if sizes else "sizes not recorded; ")
        + (f"{' or '.join(map(str, sorted(epochs)))} epochs at most; " if epochs else "")
        + f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}."
    )
