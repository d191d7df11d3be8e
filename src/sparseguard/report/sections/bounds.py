"""Section with bounds on reconstruction: tables, and layer-wise reconstruction as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sparseguard.record import Bound, Case, Record
from sparseguard.report.analysis.aggregate import average_over_seeds
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.charts.layers import UNLIMITED, LayerChart, draw_layers
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section
from sparseguard.report.text.figures import format_figure, label_figure


@dataclass(frozen=True)
class BoundRow:
    """A bound of one defense: its figures in words, or why there are none."""

    name: str
    meaning: str
    figures: tuple[tuple[str, str], ...]
    reason: str | None
    n: int


@dataclass(frozen=True)
class BoundTable:
    """The bounds of one defense."""

    defense: str
    seeds: int
    rows: tuple[BoundRow, ...]
    layers: LayerChart | None


@dataclass(frozen=True)
class CaseBounds:
    """The bounds of one case."""

    case: Case
    bounds: list[Bound]


@dataclass(frozen=True)
class BoundData:
    """The bounds of a group: by defense for the page, by case for JSON."""

    tables: list[BoundTable]
    cases: list[CaseBounds]


class Bounds(Section[BoundData]):
    """Upper bounds on reconstruction, and other facts that hold for every attack."""

    kinds = (Kind.FEATURE_INVERSION,)
    keys = ("bounds",)

    def collect(self, group: RecordGroup) -> BoundData | None:
        """Return the bounds of a group, where it has some."""
        cases = [CaseBounds(record.case, bounds) for record in group.records if (bounds := _bounds(record))]
        return BoundData(tabulate_bounds(group), cases) if cases else None

    def html(self, data: BoundData) -> str:
        """Return a table a defense, with its bars."""
        return render_html("bounds.html.j2", tables=data.tables)

    def json(self, data: BoundData) -> dict[str, list[Any]]:
        """Return ``bounds``."""
        return {"bounds": [asdict(case) for case in data.cases]}


def tabulate_bounds(group: RecordGroup) -> list[BoundTable]:
    """Return the bounds of every defense that has some; figures of several seeds are averaged."""
    layers = (layer.psnr for record in group.records for bound in _bounds(record) for layer in bound.layers)
    highest = max((psnr for psnr in layers if psnr < UNLIMITED), default=1.0)
    cells = ([record for record in cell if _bounds(record)] for cell in group.cells)
    return [_table(cell, highest) for cell in cells if cell]


def _bounds(record: Record) -> list[Bound]:
    return record.feature_inversion.bounds if record.feature_inversion else []


def _table(cell: Sequence[Record], highest: float) -> BoundTable:
    first, *others = (_bounds(record) for record in cell)
    rows = []
    for index, bound in enumerate(first):
        same = [each[index] for each in others if index < len(each) and _name(each[index]) == _name(bound)]
        rows.append(_row([bound, *same]))
    layers = next((bound.layers for bound in first if bound.layers), None)
    return BoundTable(
        defense=cell[0].case.defense,
        seeds=len(cell),
        rows=tuple(rows),
        layers=draw_layers(layers, highest) if layers else None,
    )


def _name(bound: Bound) -> str:
    return f"{bound.name} ({bound.layer})" if bound.layer else bound.name


def _row(seeds: Sequence[Bound]) -> BoundRow:
    first = next((bound for bound in seeds if bound.values or bound.layers), seeds[0])
    figures = []
    for name in first.values:
        mean = average_over_seeds(bound.values[name] for bound in seeds if name in bound.values)
        if mean:
            figures.append((label_figure(name), format_figure(name, mean)))
    reason = None if first.values or first.layers else first.reason
    return BoundRow(_name(first), first.meaning, tuple(figures), reason, first.n)
