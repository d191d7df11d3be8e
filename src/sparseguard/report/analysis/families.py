"""Families of defenses: the variants of one defense, by its name in the recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparseguard.record import Record
from sparseguard.report.analysis.adversary import BLACK_BOX
from sparseguard.report.analysis.names import UNDEFENDED
from sparseguard.report.analysis.record_group import RecordGroup
from sparseguard.report.analysis.summary import Row


@dataclass(frozen=True)
class Variant:
    """A defense with its settings: its records, one a seed, and its rows, one an adversary."""

    label: str
    records: tuple[Record, ...]
    rows: tuple[Row, ...]

    @property
    def row(self) -> Row | None:
        """The row of the black-box adversary with one query."""
        return next((row for row in self.rows if row.adversary == BLACK_BOX), None)

    @property
    def measured(self) -> list[Record]:
        """The records with scores."""
        return [record for record in self.records if record.status == "ok"]


@dataclass(frozen=True)
class TapFamilies:
    """Defenses that can be compared: those of one data set, backbone, threat and tap, by family, ``none`` first."""

    dataset: str
    backbone: str
    threat: str
    tap: str
    records: tuple[Record, ...]
    families: dict[str, list[Variant]]


def group_families(group: RecordGroup) -> list[TapFamilies]:
    """Return the families of defenses of a group, a tap each."""
    rows: dict[tuple[str, str], list[Row]] = {}
    for row in group.rows:
        rows.setdefault((row.tap, row.defense), []).append(row)
    cells: dict[str, list[list[Record]]] = {}
    for cell in group.cells:
        cells.setdefault(cell[0].case.tap, []).append(cell)
    case = group.case if group.records else None
    return [
        TapFamilies(
            case.dataset,
            case.backbone,
            case.threat,
            tap,
            tuple(record for cell in tap_cells for record in cell),
            _families(
                Variant(cell[0].case.defense, tuple(cell), tuple(rows.get((tap, cell[0].case.defense), ())))
                for cell in tap_cells
            ),
        )
        for tap, tap_cells in cells.items()
        if case
    ]


def _families(variants: Iterable[Variant]) -> dict[str, list[Variant]]:
    families: dict[str, list[Variant]] = {UNDEFENDED: []}
    for variant in variants:
        families.setdefault(variant.records[0].defense.name, []).append(variant)
    return {name: members for name, members in families.items() if members}
