"""Intervals against scipy, and by how often they hold the truth."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from sparseguard.core.errors import DataError
from sparseguard.metrics import bootstrap_interval, over_seeds, paired_difference
from sparseguard.stats import bootstrap as intervals
from sparseguard.stats.bootstrap import student_quantile


def skewed(n, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).exponential(size=n))


@pytest.mark.parametrize(("n", "level"), [(2, 0.95), (15, 0.9), (400, 0.95)])
def test_bootstrap_interval_is_scipys(n, level):
    values = skewed(n)
    many = 20_000
    theirs = scipy.stats.bootstrap(
        (values.numpy(),), np.mean, confidence_level=level, n_resamples=many, method="percentile", rng=5
    ).confidence_interval
    # an end's standard error is sqrt(p (1 - p) / draws) / density, the density at it about that of a normal
    tail, spread = (1 - level) / 2, float(values.std(correction=0)) / math.sqrt(n)
    density = scipy.stats.norm.pdf(scipy.stats.norm.ppf(tail)) / spread
    error = math.sqrt(2 * tail * (1 - tail) / many) / density
    assert bootstrap_interval(values, level, many) == pytest.approx(tuple(theirs), abs=5 * error)


def test_bootstrap_interval_of_many_images_is_the_normal_one():
    values = skewed(20_000)
    half = 1.96 * float(values.std()) / math.sqrt(len(values))
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(float(values.mean()) - half, abs=0.15 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.15 * half)


def test_bootstrap_interval_holds_the_truth_as_often_as_it_says():
    held = 0
    for seed in range(300):
        low, high = bootstrap_interval(skewed(100, seed), level=0.9, resamples=500, seed=seed)
        held += low < 1 < high
    assert 0.83 < held / 300 < 0.95  # 0.9 less a little for skewness, 3 standard errors of 0.017


def test_memory_bounds_the_draws_at_a_time_and_not_their_number(monkeypatch):
    values = skewed(50)
    whole = bootstrap_interval(values, resamples=999)
    monkeypatch.setattr(intervals, "_DRAWS", 500)
    assert bootstrap_interval(values, resamples=999) == whole  # the same stream, dealt out in parts


def test_bootstrap_interval_is_reproducible_and_of_constants_a_point():
    values = skewed(30)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    assert bootstrap_interval(torch.full((9,), 2.5)) == (2.5, 2.5)
    assert bootstrap_interval(torch.ones(1)) is None
    assert bootstrap_interval(torch.ones(0)) is None


def test_paired_difference_is_the_interval_of_the_differences():
    first = skewed(200)
    second = first - 0.3 + 0.01 * skewed(200, seed=2)
    found = paired_difference(first, second)
    assert found.n == 200
    assert found.mean == pytest.approx(float((first - second).mean()))
    assert found.interval == bootstrap_interval(first - second)
    low, high = found.interval
    assert 0 < high - low < 0.01  # the spread of the images themselves is a hundred times wider
    back = paired_difference(second, first)
    assert back.mean == pytest.approx(-found.mean)
    assert paired_difference(first[:1], second[:1]).interval is None


def test_unpaired_empty_or_broken_scores_are_refused():
    with pytest.raises(DataError, match="got 3 and 4"):
        paired_difference(torch.ones(3), torch.ones(4))
    with pytest.raises(DataError, match="got 0 and 0"):
        paired_difference(torch.ones(0), torch.ones(0))
    with pytest.raises(DataError, match="1 are not"):
        bootstrap_interval(torch.tensor([1.0, torch.inf]))
    for means in ([], [1.0, math.nan]):
        with pytest.raises(DataError, match="over seeds"):
            over_seeds(means)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 30, 61, 200])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_student_quantile_is_scipys(freedom, level):
    assert student_quantile(level, freedom) == pytest.approx(scipy.stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)


def test_interval_over_seeds_is_scipys():
    means = [17.2, 17.9, 16.8, 17.3, 18.4]
    found = over_seeds(means)
    expected = scipy.stats.t.interval(0.95, 4, loc=np.mean(means), scale=scipy.stats.sem(means))
    assert found.mean == pytest.approx(np.mean(means))
    assert found.std == pytest.approx(np.std(means, ddof=1))
    assert found.interval == pytest.approx(expected)
    assert found.n == 5


def test_one_seed_has_no_spread():
    found = over_seeds([3.5])
    assert (found.mean, found.std, found.interval, found.n) == (3.5, None, None, 1)
