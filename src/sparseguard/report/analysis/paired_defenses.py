"""Defenses side by side on the same images: each one at each level minus none at that level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import Record
from sparseguard.report.analysis.aggregate import Difference, of_samples
from sparseguard.report.analysis.grouping import cells, sections
from sparseguard.report.analysis.per_image import Held, Sample, difference, same_images, sample
from sparseguard.report.analysis.threat_levels import chosen_at, in_order, levels_of
from sparseguard.report.text.wording import METRICS, PARTS, UNDEFENDED


@dataclass(frozen=True)
class DefenseDifference:
    """A defense minus none, both with the attacker chosen at the same level; by metric, then by part."""

    dataset: str
    backbone: str
    threat: str
    tap: str
    defense: str
    level: str
    measures: dict[str, dict[str, Difference]]


def between_defenses(records: Sequence[Record], held: Held) -> list[DefenseDifference]:
    """Return every defense's differences to none; nothing where per-image scores are not at hand.

    Args:
        records: the cases.
        held: what lies beside them, by ``record.case.slug``.
    """
    return [found for section in sections(records) for found in _of_section(section, held)] if held else []


def _of_section(section: Sequence[Record], held: Held) -> list[DefenseDifference]:
    measured = [record for record in section if record.status == "ok"]
    bases = {(one.case.tap, one.case.seed): one for one in measured if one.case.defense == UNDEFENDED}
    found = []
    for cell in cells(measured):
        case = cell[0].case
        pairs = [(one, base) for one in cell if (base := bases.get((case.tap, one.case.seed)))]
        if case.defense == UNDEFENDED:
            continue
        for level in in_order(level for record, _ in pairs for level in levels_of(record)):
            measures = _measures(pairs, held, level)
            if any(measures.values()):
                found.append(
                    DefenseDifference(case.dataset, case.backbone, case.threat, case.tap, case.defense, level, measures)
                )
    return found


def _measures(pairs: Sequence[tuple[Record, Record]], held: Held, level: str) -> dict[str, dict[str, Difference]]:
    measures: dict[str, dict[str, Difference]] = {}
    for metric in METRICS:
        measures[metric] = {}
        for part in PARTS:
            seeds = [
                (record.case.seed, made)
                for record, base in pairs
                if (made := _difference(record, base, held, level, metric, part))
            ]
            if found := of_samples(seeds):
                measures[metric][part] = found
    return measures


def _difference(record: Record, base: Record, held: Held, level: str, metric: str, part: str) -> Sample | None:
    own, other = chosen_at(record, level, metric), chosen_at(base, level, metric)
    if own is None or other is None or not same_images(record, base, part):
        return None
    first, second = sample(record, held, own, part, metric), sample(base, held, other, part, metric)
    return difference(first, second) if first and second else None
