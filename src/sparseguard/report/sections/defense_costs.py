"""Section with the cost of each defense, and the figures it computes of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparseguard.record import Record
from sparseguard.report.analysis.aggregate import SeedMean, average_over_seeds
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section
from sparseguard.report.text.figures import format_figure, label_figure

COLUMNS = {"epsilon": "ε", "delta": "δ", "reconstruction_bound": "reconstruction bound"}
"""Figures with a column of their own where any defense computes them."""


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
    effective_rank: SeedMean | None
    step_flops: int | None
    relative_cost: SeedMean | None
    figures: dict[str, SeedMean]


class DefenseCosts(Section[list[TargetRow]]):
    """Parameters, features and training cost of the defended models."""

    kinds = (Kind.FEATURE_INVERSION, Kind.CLASS_INVERSION)
    keys = ("targets",)

    def collect(self, group: RecordGroup) -> list[TargetRow] | None:
        """Return a row for each defense that was measured."""
        return summarize_targets(group) or None

    def html(self, data: list[TargetRow]) -> str:
        """Return a table with a row a defense."""
        names = dict.fromkeys(name for row in data for name in row.figures)
        return render_html(
            "defense_costs.html.j2",
            rows=data,
            taps=len({row.tap for row in data}),
            columns={name: words for name, words in COLUMNS.items() if name in names},
            others=[name for name in names if name not in COLUMNS],
            label_figure=label_figure,
            format_figure=format_figure,
        )

    def json(self, data: list[TargetRow]) -> dict[str, list[Any]]:
        """Return ``targets``."""
        return {"targets": data}


def summarize_targets(group: RecordGroup) -> list[TargetRow]:
    """Return a row for each defense that was measured, in the order of the report."""
    measured = [[record for record in cell if record.status == "ok"] for cell in group.cells]
    return [_row(cell) for cell in measured if cell]


def _row(cell: Sequence[Record]) -> TargetRow:
    case = cell[0].case
    targets = [record.target for record in cell if record.target]
    features = [record.features for record in cell if record.features]
    figures = [target.defense.figures() for target in targets]
    means = {
        name: average_over_seeds(each[name] for each in figures if name in each)
        for name in dict.fromkeys(name for each in figures for name in each)
    }
    return TargetRow(
        dataset=case.dataset,
        backbone=case.backbone,
        threat=case.threat,
        tap=case.tap,
        defense=case.defense,
        seeds=len(cell),
        parameters=next((target.parameters for target in targets), None),
        dimension=next((each.dimension for each in features), None),
        effective_rank=average_over_seeds(each.effective_rank for each in features),
        step_flops=next((target.step_flops for target in targets if target.step_flops is not None), None),
        relative_cost=average_over_seeds(
            target.relative_cost for target in targets if target.relative_cost is not None
        ),
        figures={name: mean for name, mean in means.items() if mean},
    )
