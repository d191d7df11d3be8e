"""Settings of one defense belong together: a family is a defense's name, a setting one of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import Record
from sparseguard.report.analysis.grouping import cells, sections
from sparseguard.report.analysis.summary import Row
from sparseguard.report.analysis.threat_levels import BASE
from sparseguard.report.text.wording import UNDEFENDED


@dataclass(frozen=True)
class Setting:
    """A defense as it was set: its records, one a seed, and its rows, one a level."""

    label: str
    records: tuple[Record, ...]
    rows: tuple[Row, ...]

    @property
    def row(self) -> Row | None:
        """The row at level black-box."""
        return next((row for row in self.rows if row.level == BASE), None)

    @property
    def measured(self) -> list[Record]:
        """The records with scores."""
        return [record for record in self.records if record.status == "ok"]


@dataclass(frozen=True)
class Grid:
    """What can be compared: one data set, backbone, threat and tap. ``families`` is by name, ``none`` first."""

    dataset: str
    backbone: str
    threat: str
    tap: str
    records: tuple[Record, ...]
    families: dict[str, list[Setting]]


def grids(records: Sequence[Record], rows: Sequence[Row]) -> list[Grid]:
    """Return the grids of records, in the order of the report, with the rows they have there."""
    by_case: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_case.setdefault((row.dataset, row.backbone, row.threat, row.tap, row.defense), []).append(row)
    found = []
    for section in sections(records):
        own = cells(section)
        for tap in dict.fromkeys(cell[0].case.tap for cell in own):
            settings: dict[str, list[Setting]] = {UNDEFENDED: []}
            there = [cell for cell in own if cell[0].case.tap == tap]
            for cell in there:
                case = cell[0].case
                its_rows = by_case.get((case.dataset, case.backbone, case.threat, tap, case.defense), ())
                settings.setdefault(family(cell[0]), []).append(Setting(case.defense, tuple(cell), tuple(its_rows)))
            case = there[0][0].case
            together = tuple(record for cell in there for record in cell)
            families = {name: members for name, members in settings.items() if members}
            found.append(Grid(case.dataset, case.backbone, case.threat, tap, together, families))
    return found


def family(record: Record) -> str:
    """Return the name of a record's defense."""
    return record.defense.name
