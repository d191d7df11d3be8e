"""The order in which records are shown, and which of them belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from sparseguard.record import Record
from sparseguard.report.analysis.names import UNDEFENDED


def sort_records(records: Iterable[Record]) -> list[Record]:
    """Return records in the order of the rows.

    Threats come first, as the recipe lists them, then data sets and backbones, then the defenses as the recipe lists
    them; the others follow by name, ``none`` before them.
    """
    cases = list(records)
    threats = _rank({tuple(threat.name for threat in record.config.threats): None for record in cases})
    defenses = _rank({tuple(defense.label for defense in record.config.defenses): None for record in cases})

    def rank(record: Record) -> tuple[Any, ...]:
        case = record.case
        defense = (defenses.get(case.defense, len(defenses)), case.defense != UNDEFENDED, case.defense)
        return threats.get(case.threat, len(threats)), *_comparison(record), *defense, case.tap, case.seed

    return sorted(cases, key=rank)


def group_comparable(records: Sequence[Record]) -> list[list[Record]]:
    """Return sorted records that share a table: one threat, data set and backbone each."""
    return _group(records, _comparison)


def group_seeds(records: Sequence[Record]) -> list[list[Record]]:
    """Return sorted records that differ in nothing but the seed."""
    return _group(records, lambda record: (*_comparison(record), record.case.defense, record.case.tap))


def _comparison(record: Record) -> tuple[str, str, str]:
    return record.case.threat, record.case.dataset, record.case.backbone


def _group(records: Iterable[Record], key: Callable[[Record], tuple[str, ...]]) -> list[list[Record]]:
    return [list(group) for _, group in groupby(records, key=key)]


def _rank(orders: Iterable[tuple[str, ...]]) -> dict[str, int]:
    names = dict.fromkeys(name for order in orders for name in order)
    return {name: rank for rank, name in enumerate(names)}
