"""Records to rows: one row a defense and level, averaged over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sparseguard.record import Claim, Failure, FeatureInversionAttack, Flag, Record
from sparseguard.report.analysis.aggregate import Difference, Spread, compared, of_comparisons, spread
from sparseguard.report.analysis.grouping import cells, of_classes
from sparseguard.report.analysis.per_image import Held, over_seeds, sample
from sparseguard.report.analysis.threat_levels import BASE, chosen_at, in_order, levels_of, split_level
from sparseguard.report.text.wording import METRICS, PARTS
from sparseguard.stats import Interval, bootstrap_interval


@dataclass(frozen=True)
class Measure:
    """One metric on one part: the chosen attacker, the best floor, and the leak, which is their difference.

    ``ci95`` is the interval of the mean over images: by the bootstrap where per-image scores are at hand, else the
    record's, which it has for one seed. Of ``of`` images ``n`` were attacked; the floor is of the same images, and
    None where the records do not tell it for these. ``to_outputs`` is the difference on the same images to the
    attacker chosen at black-box.
    """

    leaked: Spread | None
    floor: float | None
    floor_names: tuple[str, ...]
    leak: float | None
    ci95: Interval | None
    n: int | None
    of: int | None
    to_outputs: Difference | None

    @property
    def partial(self) -> bool:
        """Whether only some images were attacked."""
        return self.n is not None and self.of is not None and self.n < self.of


@dataclass(frozen=True)
class FailedSeed:
    """A seed without scores, and why."""

    seed: int
    reason: str


@dataclass(frozen=True)
class Row:
    """One defense at one level, over its seeds.

    ``level`` is the knowledge and how often each image is sent, ``knowledge`` and ``repeats`` the two apart.
    ``measures`` is by metric, then by part. ``memorization`` is private minus test, for id@1 only where both parts
    have as many images to choose among; ``memorization_of_floors`` is the same of the best floors.
    """

    dataset: str
    backbone: str
    threat: str
    tap: str
    defense: str
    level: str | None
    knowledge: str | None
    repeats: int
    status: Literal["ok", "failed"]
    seeds: int
    accuracy: Spread | None
    measures: dict[str, dict[str, Measure]]
    memorization: dict[str, float | None]
    memorization_of_floors: dict[str, float | None]
    chosen: dict[str, tuple[str, ...]]
    identification: dict[str, int]
    dimension: int | None
    effective_rank: float | None
    noise_ratio: float | None
    flags: tuple[Flag, ...]
    failures: tuple[FailedSeed, ...]
    claim: Claim | None

    @property
    def partial(self) -> dict[str, tuple[int, int]]:
        """Part to how many of how many images were attacked, where for some metric these are not all."""
        partial: dict[str, tuple[int, int]] = {}
        for by_part in self.measures.values():
            for part, measure in by_part.items():
                if measure.partial:
                    partial.setdefault(part, (measure.n or 0, measure.of or 0))
        return partial


def rows(records: Sequence[Record], held: Held | None = None) -> list[Row]:
    """Return the rows of records: by threat, then in the recipe's order of defenses; failed cases keep a row.

    Records of attacks on classes have rows of their own.

    Args:
        records: the cases.
        held: what lies beside them, by ``record.case.slug``; with it, floors of attackers that attacked only some
            images are known, and intervals are by the bootstrap.
    """
    images = [record for record in records if not of_classes(record)]
    return [row for cell in cells(images) for row in cell_rows(cell, held or {})]


def cell_rows(cell: Sequence[Record], held: Held) -> list[Row]:
    """Return the rows of records that differ in nothing but the seed, one a level."""
    measured = [record for record in cell if record.status == "ok"]
    levels = in_order(level for record in measured for level in levels_of(record))
    return [_row(cell, measured, held, level) for level in levels or (None,)]


def _row(cell: Sequence[Record], measured: Sequence[Record], held: Held, level: str | None) -> Row:
    own = [record for record in measured if level is None or level in levels_of(record)]
    case = cell[0].case
    measures = {
        metric: {part: _measure(own, held, level, metric, part) for part in PARTS if _has_part(own, part)}
        for metric in METRICS
    }
    pools = next((record.data.reidentification_pools for record in own if record.data.reidentification_pools), {})
    sizes = {part: pools[part] for part in PARTS if part in pools}
    leaks = [record.features for record in own if record.features]
    knowledge, repeats = (None, 1) if level is None else split_level(level)
    return Row(
        dataset=case.dataset,
        backbone=case.backbone,
        threat=case.threat,
        tap=case.tap,
        defense=case.defense,
        level=level,
        knowledge=knowledge,
        repeats=repeats,
        status="ok" if measured else "failed",
        seeds=len(own),
        accuracy=spread(record.target.accuracy for record in own if record.target),
        measures=measures,
        memorization={metric: _private_minus_test(by_part, sizes, metric)[0] for metric, by_part in measures.items()},
        memorization_of_floors={
            metric: _private_minus_test(by_part, sizes, metric)[1] for metric, by_part in measures.items()
        },
        chosen={metric: _names(own, level, metric) for metric in METRICS},
        identification=sizes,
        dimension=leaks[0].dimension if leaks else None,
        effective_rank=statistics.fmean(leak.effective_rank for leak in leaks) if leaks else None,
        noise_ratio=statistics.fmean(leak.noise_ratio for leak in leaks) if leaks else None,
        flags=tuple(dict.fromkeys(flag for record in cell for flag in record.flags)),
        failures=tuple(FailedSeed(one.case.seed, reason_of(one.failure)) for one in cell if one.status == "failed"),
        claim=next((record.claim for record in cell if record.claim), None),
    )


def reason_of(failure: Failure | None) -> str:
    """Return why a case has no scores."""
    return f"{failure.stage}: {failure.kind}: {failure.message}" if failure else "no reason recorded"


def _has_part(records: Iterable[Record], part: str) -> bool:
    return any(part in attacker.scores for record in records for attacker in record.attacks)


def _measure(records: Sequence[Record], held: Held, level: str | None, metric: str, part: str) -> Measure:
    chosen = [(record, chosen_at(record, level, metric)) for record in records]
    scored = [(record, one) for record, one in chosen if one and metric in one.scores.get(part, {})]
    summaries = [one.scores[part][metric] for _, one in scored]
    leaked = spread(summary.mean for summary in summaries)
    best = [_best_floor(record, held, one, metric, part) for record, one in chosen]
    known = [found for found in best if found]
    floor = statistics.fmean(mean for mean, _ in known) if known and len(known) == len(best) else None
    together = over_seeds([sample(record, held, one, part, metric) for record, one in scored])
    ci95 = bootstrap_interval(together.values) if together else None
    differences = [
        (record, found)
        for record, one in scored
        if level != BASE and (found := compared(record, "knowledge", one.name, metric, part))
    ]
    return Measure(
        leaked=leaked,
        floor=floor,
        floor_names=tuple(sorted({name for _, name in known})) if floor is not None else (),
        leak=leaked.mean - floor if leaked and floor is not None else None,
        ci95=ci95 or (summaries[0].ci95 if len(summaries) == 1 else None),
        n=min((summary.n for summary in summaries), default=None),
        of=next((size for record in records if (size := record.data.sizes.get(part))), None),
        to_outputs=of_comparisons(differences, held),
    )


def _best_floor(
    record: Record, held: Held, chosen: FeatureInversionAttack | None, metric: str, part: str
) -> tuple[float, str] | None:
    """Return the best floor on the images that the chosen attacker attacked, and its name."""
    floors = [one for one in record.attacks if one.floor and metric in one.scores.get(part, {})]
    wanted = chosen.indices.get(part) if chosen else None
    found = []
    for floor in floors:
        if floor.indices.get(part) == wanted:
            found.append((floor.scores[part][metric].mean, floor.name))
        elif wanted is not None and (own := sample(record, held, floor, part, metric)):
            values = own.at(np.asarray(wanted))
            found += [] if values is None else [(float(values.mean()), floor.name)]
    return max(found, default=None)


def _private_minus_test(
    by_part: dict[str, Measure], sizes: dict[str, int], metric: str
) -> tuple[float | None, float | None]:
    """Return the difference of the chosen attacker's scores, and of the floors."""
    if len(by_part) < len(PARTS) or (metric == "id@1" and len(set(sizes.values())) != 1):
        return None, None
    private, test = (by_part[part] for part in PARTS)
    own = private.leaked.mean - test.leaked.mean if private.leaked and test.leaked else None
    floors = None if private.floor is None or test.floor is None else private.floor - test.floor
    return own, floors


def _names(records: Iterable[Record], level: str | None, metric: str) -> tuple[str, ...]:
    found = {one.name for record in records if (one := chosen_at(record, level, metric))}
    return tuple(sorted(found))
