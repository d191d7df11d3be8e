"""Records to rows: one row a defense and knowledge level, averaged over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pydantic

from sparseguard.record import SCHEMA_VERSION, Claim, Failure, Flag, Record
from sparseguard.report.order import cells
from sparseguard.report.wording import KNOWLEDGE, METRICS, PARTS


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and the standard deviation over them, which one seed does not have."""

    mean: float
    std: float | None


@dataclass(frozen=True)
class Measure:
    """One metric on one part: the chosen attacker, the best floor, and the leak, which is their difference."""

    leaked: Spread | None
    floor: float | None
    floor_names: tuple[str, ...]
    leak: float | None


@dataclass(frozen=True)
class FailedSeed:
    """A seed without scores, and why."""

    seed: int
    reason: str


@dataclass(frozen=True)
class Row:
    """One defense at one knowledge level, over its seeds.

    ``measures`` is by metric, then by part. ``memorization`` is private minus test, for id@1 only where both parts
    have as many images to choose among.
    """

    dataset: str
    backbone: str
    threat: str
    tap: str
    defense: str
    knowledge: str | None
    status: Literal["ok", "failed"]
    seeds: int
    accuracy: Spread | None
    measures: dict[str, dict[str, Measure]]
    memorization: dict[str, float | None]
    chosen: dict[str, tuple[str, ...]]
    identification: dict[str, int]
    dimension: int | None
    effective_rank: float | None
    noise_ratio: float | None
    flags: tuple[Flag, ...]
    failures: tuple[FailedSeed, ...]
    claim: Claim | None


def rows(records: Sequence[Record]) -> list[Row]:
    """Return the rows of records: by threat, then in the recipe's order of defenses; failed cases keep a row."""
    return [row for cell in cells(records) for row in cell_rows(cell)]


def to_json(records: Sequence[Record]) -> dict[str, Any]:
    """Return the rows and the scale of records as plain values, ready for ``json.dumps``."""
    plain = pydantic.TypeAdapter(list[Row]).dump_python(rows(records), mode="json")
    return {"schema_version": SCHEMA_VERSION, "scale": scale(records), "rows": plain}


def scale(records: Sequence[Record]) -> str:
    """Return how large the run was, one sentence a dataset: images by part, epochs, seeds."""
    datasets = sorted({record.case.dataset for record in records})
    return " ".join(_dataset_scale([one for one in records if one.case.dataset == name]) for name in datasets)


def cell_rows(cell: Sequence[Record]) -> list[Row]:
    """Return the rows of records that differ in nothing but the seed, one a knowledge level."""
    measured = [record for record in cell if record.status == "ok"]
    present = {level for record in measured for level in record.chosen}
    if not present:
        return [_row(cell, measured, None)]
    levels = [level for level in KNOWLEDGE if level in present] + sorted(present.difference(KNOWLEDGE))
    return [_row(cell, measured, level) for level in levels]


def _dataset_scale(records: Sequence[Record]) -> str:
    largest = max((record.data.get("sizes") or {} for record in records), key=len)
    sizes = ", ".join(f"{size:,} {part.replace('_', '-')}" for part, size in largest.items())
    epochs = {record.config.get("fit", {}).get("epochs") for record in records} - {None}
    layouts = {record.data.get("layout") for record in records} - {None}
    seeds = sorted({record.case.seed for record in records})
    layout = f" (layout {', '.join(sorted(map(str, layouts)))})" if layouts else ""
    return (
        f"{records[0].case.dataset}{layout}: "
        + (f"{sizes} images; " if sizes else "sizes not recorded; ")
        + (f"{' or '.join(map(str, sorted(epochs)))} epochs at most; " if epochs else "")
        + f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}."
    )


def _row(cell: Sequence[Record], measured: Sequence[Record], level: str | None) -> Row:
    own = [record for record in measured if level is None or level in record.chosen]
    case = cell[0].case
    measures = {
        metric: {part: _measure(own, level, metric, part) for part in PARTS if _has_part(own, part)}
        for metric in METRICS
    }
    pools = next((record.identification for record in own if record.identification), {})
    sizes = {part: pools[part] for part in PARTS if part in pools}
    leaks = [record.leaked for record in own if record.leaked]
    return Row(
        dataset=case.dataset,
        backbone=case.backbone,
        threat=case.threat,
        tap=case.tap,
        defense=case.defense,
        knowledge=level,
        status="ok" if measured else "failed",
        seeds=len(own),
        accuracy=_spread(record.target.accuracy for record in own if record.target),
        measures=measures,
        memorization={
            metric: _difference(by_part) if metric != "id@1" or len(set(sizes.values())) == 1 else None
            for metric, by_part in measures.items()
        },
        chosen={metric: _chosen(own, level, metric) for metric in METRICS},
        identification=sizes,
        dimension=leaks[0].dimension if leaks else None,
        effective_rank=statistics.fmean(leak.effective_rank for leak in leaks) if leaks else None,
        noise_ratio=statistics.fmean(leak.noise_ratio for leak in leaks) if leaks else None,
        flags=tuple(dict.fromkeys(flag for record in cell for flag in record.flags)),
        failures=tuple(FailedSeed(one.case.seed, _reason(one.failure)) for one in cell if one.status == "failed"),
        claim=next((record.claim for record in cell if record.claim), None),
    )


def _reason(failure: Failure | None) -> str:
    return f"{failure.stage}: {failure.kind}: {failure.message}" if failure else "no reason recorded"


def _has_part(records: Iterable[Record], part: str) -> bool:
    return any(part in attacker.scores for record in records for attacker in record.attackers)


def _spread(values: Iterable[float]) -> Spread | None:
    known = list(values)
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def _measure(records: Sequence[Record], level: str | None, metric: str, part: str) -> Measure:
    names = [record.chosen.get(level or "", {}).get(metric, "") for record in records]
    means = [_means(record, part, metric) for record in records]
    leaked = _spread(mean[name] for mean, name in zip(means, names, strict=True) if name in mean)
    best = [found for record in records if (found := _best_floor(record, part, metric))]
    floor = statistics.fmean(mean for mean, _ in best) if best else None
    leak = leaked.mean - floor if leaked and floor is not None else None
    return Measure(leaked, floor, tuple(sorted({name for _, name in best})), leak)


def _means(record: Record, part: str, metric: str) -> dict[str, float]:
    scored = [one for one in record.attackers if metric in one.scores.get(part, {})]
    return {one.name: one.scores[part][metric].mean for one in scored}


def _best_floor(record: Record, part: str, metric: str) -> tuple[float, str] | None:
    floors = {one.name for one in record.attackers if one.floor}
    return max(((mean, name) for name, mean in _means(record, part, metric).items() if name in floors), default=None)


def _difference(by_part: dict[str, Measure]) -> float | None:
    leaked = [measure.leaked for part in PARTS if (measure := by_part.get(part))]
    if len(leaked) < len(PARTS) or leaked[0] is None or leaked[1] is None:
        return None
    return leaked[0].mean - leaked[1].mean


def _chosen(records: Iterable[Record], level: str | None, metric: str) -> tuple[str, ...]:
    names = {record.chosen.get(level or "", {}).get(metric) for record in records}
    return tuple(sorted(name for name in names if name))
