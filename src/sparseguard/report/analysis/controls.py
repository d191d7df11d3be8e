"""Controls: attacks under changed circumstances, each beside the attack it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import FeatureInversionAttack, Record
from sparseguard.report.analysis.aggregate import Difference, Spread, compared, of_comparisons, spread
from sparseguard.report.analysis.per_image import Held
from sparseguard.report.analysis.threat_levels import is_control, level_of, setting_words
from sparseguard.report.text.wording import METRICS, PARTS


@dataclass(frozen=True)
class ControlMeasure:
    """A control's mean, that of the attack it belongs to on the same images, and control minus attack."""

    control: Spread | None
    attack: Spread | None
    difference: Difference | None


@dataclass(frozen=True)
class Control:
    """One control under one defense, over its seeds; ``measures`` is by metric, then by part."""

    defense: str
    name: str
    level: str
    words: tuple[str, ...]
    belongs_to: tuple[str, ...]
    seeds: int
    measures: dict[str, dict[str, ControlMeasure]]


def cell_controls(cell: Sequence[Record], held: Held) -> list[Control]:
    """Return the controls of records that differ in nothing but the seed."""
    found = [(record, attacker) for record in cell for attacker in record.attacks if is_control(attacker)]
    names = dict.fromkeys(attacker.name for _, attacker in found)
    return [_control([(record, one) for record, one in found if one.name == name], held) for name in names]


def _control(own: Sequence[tuple[Record, FeatureInversionAttack]], held: Held) -> Control:
    record, first = own[0]
    measures = {
        metric: {part: _measure(own, held, metric, part) for part in PARTS if any(part in one.scores for _, one in own)}
        for metric in METRICS
    }
    seconds = {
        one.second for each, _ in own for one in each.comparisons if one.kind == "control" and one.first == first.name
    }
    return Control(
        defense=record.case.defense,
        name=first.name,
        level=level_of(first),
        words=setting_words(first.conditions),
        belongs_to=tuple(sorted(seconds)),
        seeds=len(own),
        measures=measures,
    )


def _measure(
    own: Sequence[tuple[Record, FeatureInversionAttack]], held: Held, metric: str, part: str
) -> ControlMeasure:
    scored = [(record, one) for record, one in own if metric in one.scores.get(part, {})]
    differences = [
        (record, found) for record, one in scored if (found := compared(record, "control", one.name, metric, part))
    ]
    beside = [value for record, one in scored if (value := _beside(record, one, metric, part)) is not None]
    return ControlMeasure(
        control=spread(one.scores[part][metric].mean for _, one in scored),
        attack=spread(beside),
        difference=of_comparisons(differences, held),
    )


def _beside(record: Record, control: FeatureInversionAttack, metric: str, part: str) -> float | None:
    """Return the mean of the attack a control belongs to, on the control's images."""
    found = compared(record, "control", control.name, metric, part)
    own = control.scores[part][metric]
    return own.mean - found.mean if found and found.n == own.n else None
