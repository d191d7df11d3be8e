"""The report as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pydantic

from sparseguard.record import SCHEMA_VERSION, Bound, Case, Record
from sparseguard.report.analysis.class_sections import ClassSection, class_reports
from sparseguard.report.analysis.controls import Control, cell_controls
from sparseguard.report.analysis.defense_cost import TargetRow, target_rows
from sparseguard.report.analysis.grouping import cells
from sparseguard.report.analysis.matched_accuracy import MAX_DROP, Matched, matched
from sparseguard.report.analysis.paired_defenses import DefenseDifference, between_defenses
from sparseguard.report.analysis.pareto import Pareto, pareto
from sparseguard.report.analysis.per_image import Held
from sparseguard.report.analysis.summary import Row, rows
from sparseguard.report.text.run_size import scale


@dataclass(frozen=True)
class CellControls:
    """The controls of one defense, with where they belong."""

    dataset: str
    backbone: str
    threat: str
    controls: list[Control]


@dataclass(frozen=True)
class CaseFacts:
    """What is told of a case apart from rows."""

    case: Case
    bounds: list[Bound]
    skipped: dict[str, str]


@dataclass(frozen=True)
class _Plain:
    schema_version: int
    scale: str
    rows: list[Row]
    controls: list[CellControls]
    differences: list[DefenseDifference]
    matched: list[Matched]
    pareto: list[Pareto]
    targets: list[TargetRow]
    cases: list[CaseFacts]
    classes: list[ClassSection]


def to_json(records: Sequence[Record], held: Held | None = None, max_drop: float = MAX_DROP) -> dict[str, Any]:
    """Return the report of records as plain values, ready for ``json.dumps``.

    Attacks on classes are under ``classes``, and in ``targets`` and ``cases``, not in the others.

    Args:
        records: the cases.
        held: what lies beside them, by ``record.case.slug``; without it there are no differences between defenses.
        max_drop: how much accuracy a setting may lose where defenses are compared at matched accuracy.
    """
    own = rows(records, held)
    plain = _Plain(
        schema_version=SCHEMA_VERSION,
        scale=scale(records),
        rows=own,
        controls=[
            CellControls(case.dataset, case.backbone, case.threat, found)
            for cell in cells(records)
            for case in (cell[0].case,)
            if (found := cell_controls(cell, held or {}))
        ],
        differences=between_defenses(records, held or {}),
        matched=matched(records, own, max_drop),
        pareto=pareto(records, own),
        targets=target_rows(records),
        cases=[CaseFacts(record.case, record.bounds, record.skipped) for record in records],
        classes=class_reports(records),
    )
    values: dict[str, Any] = pydantic.TypeAdapter(_Plain).dump_python(plain, mode="json")
    return values
