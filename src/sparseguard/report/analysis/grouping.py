"""The order in which records are shown, and which of them belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from sparseguard.record import Record
from sparseguard.report.text.wording import THREATS


def sections(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records that share a table: one threat, dataset and backbone each, in the order of the report.

    Those of attacks on classes are left out; they have `class_sections`.
    """
    return _grouped(_ordered([record for record in records if not of_classes(record)]), _section)


def class_sections(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records of attacks on classes, grouped and ordered as those of `sections`."""
    return _grouped(_ordered([record for record in records if of_classes(record)]), _section)


def of_classes(record: Record) -> bool:
    """Return whether a record is of attacks on classes."""
    return record.threat.goal == "class-inversion"


def cells(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records that differ in nothing but the seed, in the order of the rows.

    Threats come first, then datasets and backbones, then the defenses as ``config.defenses`` lists them;
    those not listed follow by name, ``none`` before the others.
    """
    return _grouped(_ordered(records), lambda record: (*_section(record), record.case.defense, record.case.tap))


def _section(record: Record) -> tuple[str, str, str]:
    return record.case.threat, record.case.dataset, record.case.backbone


def _ordered(records: Sequence[Record]) -> list[Record]:
    threats = list(THREATS)
    listed = list(dict.fromkeys(defense.label for record in records for defense in record.config.defenses))

    def place(record: Record) -> tuple[Any, ...]:
        case = record.case
        threat = threats.index(case.threat) if case.threat in threats else len(threats)
        defense = listed.index(case.defense) if case.defense in listed else len(listed)
        return threat, *_section(record), defense, case.defense != "none", case.defense, case.tap, case.seed

    return sorted(records, key=place)


def _grouped(ordered: Iterable[Record], key: Callable[[Record], tuple[str, ...]]) -> list[list[Record]]:
    return [list(group) for _, group in groupby(ordered, key=key)]
