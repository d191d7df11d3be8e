"""What a defense costs, and the figures it gives of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import Record
from sparseguard.report.analysis.aggregate import Spread, spread
from sparseguard.report.analysis.grouping import cells

COLUMNS = {"epsilon": "ε", "delta": "δ", "reconstruction_bound": "reconstruction bound"}
"""Figures that have a column of their own where any defense gives them."""


@dataclass(frozen=True)
class TargetRow:
    """A defended model, over its seeds. ``figures`` are the defense's own."""

    dataset: str
    backbone: str
    threat: str
    tap: str
    defense: str
    seeds: int
    parameters: int | None
    dimension: int | None
    effective_rank: Spread | None
    step_flops: int | None
    relative_cost: Spread | None
    figures: dict[str, Spread]


def target_rows(records: Sequence[Record]) -> list[TargetRow]:
    """Return a row for each defense that was measured, in the order of the report.

    Args:
        records: the cases.
    """
    measured = [[record for record in cell if record.status == "ok"] for cell in cells(records)]
    return [_row(cell) for cell in measured if cell]


def columns(rows: Sequence[TargetRow]) -> dict[str, str]:
    """Return the figures that have a column of their own here, with the words above it."""
    return {key: words for key, words in COLUMNS.items() if any(key in row.figures for row in rows)}


def _row(cell: Sequence[Record]) -> TargetRow:
    case = cell[0].case
    targets = [record.target for record in cell if record.target]
    leaks = [record.features for record in cell if record.features]
    told = [target.defense.figures() for target in targets]
    keys = dict.fromkeys(key for one in told for key in one)
    figures = {key: spread(one[key] for one in told if key in one) for key in keys}
    return TargetRow(
        dataset=case.dataset,
        backbone=case.backbone,
        threat=case.threat,
        tap=case.tap,
        defense=case.defense,
        seeds=len(cell),
        parameters=next((target.parameters for target in targets), None),
        dimension=next((leak.dimension for leak in leaks), None),
        effective_rank=spread(leak.effective_rank for leak in leaks),
        step_flops=next((target.step_flops for target in targets if target.step_flops is not None), None),
        relative_cost=spread(target.relative_cost for target in targets if target.relative_cost is not None),
        figures={key: value for key, value in figures.items() if value},
    )
