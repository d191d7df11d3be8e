"""Means over seeds and differences on the same images; variation over images and over seeds stays apart."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sparseguard.record import Comparison, Record
from sparseguard.report.analysis.per_image import (
    ImageScores,
    PicturesBySlug,
    average_seeds,
    select_all_image_scores,
    select_image_scores,
    subtract,
)
from sparseguard.stats import Interval, bootstrap_interval, bootstrap_intervals


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds and the standard deviation over them, None for one seed."""

    mean: float
    std: float | None


@dataclass(frozen=True)
class SeedDifference:
    """A difference in one seed, with the bootstrap 95 % interval of its mean over images."""

    seed: int
    mean: float
    ci95: Interval | None
    n: int


@dataclass(frozen=True)
class Difference:
    """A difference on the same images.

    ``ci95`` is the bootstrap 95 % interval of the mean over images, of several seeds that of each image's mean over
    them; None where scores of images are missing. ``std`` is the standard deviation over seeds, None for one seed.
    ``n`` is the number of images.
    """

    mean: float
    ci95: Interval | None
    std: float | None
    n: int
    seeds: tuple[SeedDifference, ...]


def average_over_seeds(values: Iterable[float]) -> SeedMean | None:
    """Return mean and standard deviation over seeds; None without a value."""
    known = list(values)
    if not known:
        return None
    return SeedMean(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def compute_intervals(record: Record, pictures: PicturesBySlug) -> dict[tuple[str, str, str], Interval]:
    """Return bootstrap intervals over images of all of a case's means, by attack, split and metric."""
    by_count: dict[int, dict[tuple[str, str, str], ImageScores]] = {}
    for key, scores in select_all_image_scores(record, pictures).items():
        by_count.setdefault(len(scores.values), {})[key] = scores
    return {
        key: interval
        for count, scores_by_key in by_count.items()
        if count > 1
        for key, interval in zip(
            scores_by_key,
            bootstrap_intervals(np.stack([scores.values for scores in scores_by_key.values()])),
            strict=True,
        )
    }


def average_differences(by_seed: Sequence[tuple[int, ImageScores]]) -> Difference | None:
    """Return a difference from the differences of each image, by seed."""
    seeds = [
        SeedDifference(seed, float(scores.values.mean()), bootstrap_interval(scores.values), len(scores.values))
        for seed, scores in by_seed
    ]
    average = average_seeds([scores for _, scores in by_seed])
    return _difference(seeds, bootstrap_interval(average.values) if average else None)


def average_comparisons(by_seed: Sequence[tuple[Record, Comparison]], pictures: PicturesBySlug) -> Difference | None:
    """Return a difference from the comparisons that records hold.

    For several seeds, the interval over images is that of each image's mean over them, where files hold the scores.
    """
    seeds = [SeedDifference(record.case.seed, each.mean, each.ci95, each.n) for record, each in by_seed]
    if len(seeds) == 1:
        return _difference(seeds, seeds[0].ci95)
    average = average_seeds([_compare_images(record, each, pictures) for record, each in by_seed])
    return _difference(seeds, bootstrap_interval(average.values) if average else None)


def find_comparison(record: Record, kind: str, first: str, metric: str, split: str) -> Comparison | None:
    """Return a record's comparison of an attack with its reference, None where there is none."""
    key = (kind, first, metric, split)
    comparisons = record.feature_inversion.comparisons if record.feature_inversion else []
    return next((each for each in comparisons if (each.kind, each.first, each.metric, each.split) == key), None)


def _compare_images(record: Record, comparison: Comparison, pictures: PicturesBySlug) -> ImageScores | None:
    attacks = {attack.name: attack for attack in record.attacks}
    if comparison.first not in attacks or comparison.second not in attacks:
        return None
    first, second = (
        select_image_scores(record, pictures, attacks[name], comparison.split, comparison.metric)
        for name in (comparison.first, comparison.second)
    )
    return subtract(first, second) if first and second else None


def _difference(seeds: Sequence[SeedDifference], ci95: Interval | None) -> Difference | None:
    mean = average_over_seeds(each.mean for each in seeds)
    if mean is None:
        return None
    return Difference(mean.mean, ci95, mean.std, min(each.n for each in seeds), tuple(seeds))
