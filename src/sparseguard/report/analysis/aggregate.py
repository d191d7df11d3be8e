"""Means over seeds and differences on the same images; what images say and what seeds say is kept apart."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sparseguard.record import Comparison, Record
from sparseguard.report.analysis.per_image import Held, Sample, difference, every_sample, over_seeds, sample
from sparseguard.stats import Interval, bootstrap_interval, bootstrap_intervals


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and the standard deviation over them, which one seed does not have."""

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
    them; None where that cannot be had. ``std`` is the standard deviation over seeds, None for one seed. ``n`` is the
    number of images.
    """

    mean: float
    ci95: Interval | None
    std: float | None
    n: int
    seeds: tuple[SeedDifference, ...]


def spread(values: Iterable[float]) -> Spread | None:
    """Return mean and standard deviation over seeds; None without a value."""
    known = list(values)
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def intervals(record: Record, held: Held) -> dict[tuple[str, str, str], Interval]:
    """Return bootstrap intervals over images of all of a case's means, by attacker, part and metric."""
    by_count: dict[int, dict[tuple[str, str, str], Sample]] = {}
    for key, one in every_sample(record, held).items():
        by_count.setdefault(len(one.values), {})[key] = one
    return {
        key: interval
        for count, samples in by_count.items()
        if count > 1
        for key, interval in zip(
            samples, bootstrap_intervals(np.stack([one.values for one in samples.values()])), strict=True
        )
    }


def of_samples(by_seed: Sequence[tuple[int, Sample]]) -> Difference | None:
    """Return a difference from the differences of each image, by seed."""
    seeds = [
        SeedDifference(seed, float(one.values.mean()), bootstrap_interval(one.values), len(one.values))
        for seed, one in by_seed
    ]
    together = over_seeds([one for _, one in by_seed])
    return _difference(seeds, bootstrap_interval(together.values) if together else None)


def of_comparisons(by_seed: Sequence[tuple[Record, Comparison]], held: Held) -> Difference | None:
    """Return a difference from the comparisons that records hold.

    For several seeds, the interval over images is that of each image's mean over them, where scores are at hand.
    """
    seeds = [SeedDifference(record.case.seed, one.mean, one.ci95, one.n) for record, one in by_seed]
    if len(seeds) == 1:
        return _difference(seeds, seeds[0].ci95)
    together = over_seeds([_images(record, one, held) for record, one in by_seed])
    return _difference(seeds, bootstrap_interval(together.values) if together else None)


def _images(record: Record, comparison: Comparison, held: Held) -> Sample | None:
    """Return a comparison image by image."""
    own = {attacker.name: attacker for attacker in record.attacks}
    if comparison.first not in own or comparison.second not in own:
        return None
    both = [
        sample(record, held, own[name], comparison.split, comparison.metric)
        for name in (comparison.first, comparison.second)
    ]
    return difference(both[0], both[1]) if both[0] and both[1] else None


def compared(record: Record, kind: str, first: str, metric: str, part: str) -> Comparison | None:
    """Return what a record says of an attacker beside the one it is compared with."""
    wanted = (kind, first, metric, part)
    return next((one for one in record.comparisons if (one.kind, one.first, one.metric, one.split) == wanted), None)


def _difference(seeds: Sequence[SeedDifference], ci95: Interval | None) -> Difference | None:
    means = spread(one.mean for one in seeds)
    if means is None:
        return None
    return Difference(means.mean, ci95, means.std, min(one.n for one in seeds), tuple(seeds))
