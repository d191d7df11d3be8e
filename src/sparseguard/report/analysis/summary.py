"""Records of feature inversion as rows: one row a defense and adversary, averaged over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sparseguard.record import Claim, Failure, FeatureInversionAttack, Flag, Record
from sparseguard.report.analysis.adversary import (
    BLACK_BOX,
    Adversary,
    find_chosen_attack,
    list_adversaries,
    sort_adversaries,
)
from sparseguard.report.analysis.aggregate import (
    Difference,
    SeedMean,
    average_comparisons,
    average_over_seeds,
    find_comparison,
)
from sparseguard.report.analysis.names import SPLITS
from sparseguard.report.analysis.per_image import PicturesBySlug, average_seeds, select_image_scores
from sparseguard.stats import Interval, bootstrap_interval


@dataclass(frozen=True)
class Measure:
    """One metric on one split: the chosen attack's score, the best floor, and the leak, which is their difference.

    ``ci95`` is the interval of the mean over images: by the bootstrap where files hold the scores of each image, else
    the record's, which it has for one seed. Of ``total`` images ``n`` were attacked; the floor is of the same images,
    and None where the records do not hold it for these. ``to_black_box`` is the difference on the same images to the
    attack chosen for black-box with one query.
    """

    score: SeedMean | None
    floor: float | None
    floor_names: tuple[str, ...]
    leak: float | None
    ci95: Interval | None
    n: int | None
    total: int | None
    to_black_box: Difference | None

    @property
    def partial(self) -> bool:
        """Whether only a subset of the images was attacked."""
        return self.n is not None and self.total is not None and self.n < self.total


@dataclass(frozen=True)
class FailedSeed:
    """A seed without scores, and why."""

    seed: int
    reason: str


@dataclass(frozen=True)
class Row:
    """One defense and adversary, over its seeds.

    ``knowledge`` and ``queries`` are the adversary's; ``knowledge`` is None where no attack was chosen. ``measures``
    is by metric, then by split. ``memorization`` is private minus test, for id@1 only where both splits have as many
    candidates; ``floor_memorization`` is the same of the best floors. ``chosen`` is metric -> names of attacks,
    ``identification`` is split -> number of candidates.
    """

    dataset: str
    backbone: str
    threat: str
    tap: str
    defense: str
    knowledge: str | None
    queries: int
    status: Literal["ok", "failed"]
    seeds: int
    accuracy: SeedMean | None
    measures: dict[str, dict[str, Measure]]
    memorization: dict[str, float | None]
    floor_memorization: dict[str, float | None]
    chosen: dict[str, tuple[str, ...]]
    identification: dict[str, int]
    dimension: int | None
    effective_rank: float | None
    noise_ratio: float | None
    flags: tuple[Flag, ...]
    failures: tuple[FailedSeed, ...]
    claim: Claim | None

    @property
    def adversary(self) -> Adversary | None:
        """Knowledge and queries of the attacks of the row; None where none was chosen."""
        return None if self.knowledge is None else Adversary(self.knowledge, self.queries)

    @property
    def label(self) -> str:
        """The adversary in a few words."""
        return self.adversary.label if self.adversary else "no attack chosen"

    @property
    def partial(self) -> dict[str, tuple[int, int]]:
        """Split -> how many of how many images were attacked, where for some metric these are not all."""
        partial: dict[str, tuple[int, int]] = {}
        for by_split in self.measures.values():
            for split, measure in by_split.items():
                if measure.partial:
                    partial.setdefault(split, (measure.n or 0, measure.total or 0))
        return partial

    def repeats_target(self, previous: Row | None) -> bool:
        """Return whether the row before is of the same target."""
        return previous is not None and (previous.defense, previous.tap) == (self.defense, self.tap)


def summarize_seeds(cell: Sequence[Record], pictures: PicturesBySlug, metrics: Collection[str]) -> list[Row]:
    """Return the rows of records that differ in nothing but the seed, one an adversary; failed cases have a row too."""
    measured = [record for record in cell if record.status == "ok"]
    present = sort_adversaries(adversary for record in measured for adversary in list_adversaries(record))
    return [_row(cell, measured, pictures, adversary, metrics) for adversary in present or (None,)]


def describe_failure(failure: Failure | None) -> str:
    """Return why a case has no scores."""
    return f"{failure.stage}: {failure.kind}: {failure.message}" if failure else "no reason recorded"


def _row(
    cell: Sequence[Record],
    measured: Sequence[Record],
    pictures: PicturesBySlug,
    adversary: Adversary | None,
    metrics: Collection[str],
) -> Row:
    records = [record for record in measured if adversary is None or adversary in list_adversaries(record)]
    case = cell[0].case
    measures = {
        metric: {
            split: _measure(records, pictures, adversary, metric, split)
            for split in SPLITS
            if any(split in attack.scores for record in records for attack in record.attacks)
        }
        for metric in metrics
    }
    pools = (record.data.reidentification_pools for record in records)
    candidates = next((pool for pool in pools if pool), {})
    sizes = {split: candidates[split] for split in SPLITS if split in candidates}
    taps = [record.features for record in records if record.features]
    memorization = {metric: _memorization(by_split, sizes, metric) for metric, by_split in measures.items()}
    return Row(
        dataset=case.dataset,
        backbone=case.backbone,
        threat=case.threat,
        tap=case.tap,
        defense=case.defense,
        knowledge=adversary.knowledge if adversary else None,
        queries=adversary.queries if adversary else 1,
        status="ok" if measured else "failed",
        seeds=len(records),
        accuracy=average_over_seeds(record.target.accuracy for record in records if record.target),
        measures=measures,
        memorization={metric: own for metric, (own, _) in memorization.items()},
        floor_memorization={metric: floor for metric, (_, floor) in memorization.items()},
        chosen={metric: _names(records, adversary, metric) for metric in metrics},
        identification=sizes,
        dimension=taps[0].dimension if taps else None,
        effective_rank=statistics.fmean(tap.effective_rank for tap in taps) if taps else None,
        noise_ratio=statistics.fmean(tap.noise_ratio for tap in taps) if taps else None,
        flags=tuple(dict.fromkeys(flag for record in cell for flag in record.flags)),
        failures=list_failed_seeds(cell),
        claim=next((record.claim for record in cell if record.claim), None),
    )


def list_failed_seeds(cell: Iterable[Record]) -> tuple[FailedSeed, ...]:
    """Return the seeds without scores."""
    failed = (record for record in cell if record.status == "failed")
    return tuple(FailedSeed(record.case.seed, describe_failure(record.failure)) for record in failed)


def _measure(
    records: Sequence[Record], pictures: PicturesBySlug, adversary: Adversary | None, metric: str, split: str
) -> Measure:
    chosen = [(record, find_chosen_attack(record, adversary, metric)) for record in records]
    scored = [(record, each) for record, each in chosen if each and metric in each.scores.get(split, {})]
    summaries = [each.scores[split][metric] for _, each in scored]
    score = average_over_seeds(summary.mean for summary in summaries)
    floors = [find_best_floor(record, pictures, each, metric, split) for record, each in chosen]
    known = [each for each in floors if each]
    floor = statistics.fmean(mean for mean, _ in known) if known and len(known) == len(floors) else None
    average = average_seeds([select_image_scores(record, pictures, each, split, metric) for record, each in scored])
    ci95 = bootstrap_interval(average.values) if average else None
    comparisons = [
        (record, comparison)
        for record, each in scored
        if adversary != BLACK_BOX and (comparison := find_comparison(record, "knowledge", each.name, metric, split))
    ]
    return Measure(
        score=score,
        floor=floor,
        floor_names=tuple(sorted({name for _, name in known})) if floor is not None else (),
        leak=score.mean - floor if score and floor is not None else None,
        ci95=ci95 or (summaries[0].ci95 if len(summaries) == 1 else None),
        n=min((summary.n for summary in summaries), default=None),
        total=next((size for record in records if (size := record.data.sizes.get(split))), None),
        to_black_box=average_comparisons(comparisons, pictures),
    )


def find_best_floor(
    record: Record, pictures: PicturesBySlug, chosen: FeatureInversionAttack | None, metric: str, split: str
) -> tuple[float, str] | None:
    """Return the mean of the best floor on the images that the chosen attack attacked, and its name."""
    floors = [each for each in record.attacks if each.floor and metric in each.scores.get(split, {})]
    indices = chosen.indices.get(split) if chosen else None
    means = []
    for floor in floors:
        if floor.indices.get(split) == indices:
            means.append((floor.scores[split][metric].mean, floor.name))
        elif indices is not None and (scores := select_image_scores(record, pictures, floor, split, metric)):
            subset = scores.select(np.asarray(indices))
            means += [] if subset is None else [(float(subset.mean()), floor.name)]
    return max(means, default=None)


def _memorization(
    by_split: dict[str, Measure], sizes: dict[str, int], metric: str
) -> tuple[float | None, float | None]:
    """Return private minus test of the chosen attack's scores, and of the floors."""
    if len(by_split) < len(SPLITS) or (metric == "id@1" and len(set(sizes.values())) != 1):
        return None, None
    private, test = (by_split[split] for split in SPLITS)
    own = private.score.mean - test.score.mean if private.score and test.score else None
    floors = None if private.floor is None or test.floor is None else private.floor - test.floor
    return own, floors


def _names(records: Iterable[Record], adversary: Adversary | None, metric: str) -> tuple[str, ...]:
    chosen = (find_chosen_attack(record, adversary, metric) for record in records)
    return tuple(sorted({attack.name for attack in chosen if attack}))
