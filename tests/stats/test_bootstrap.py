"""Bootstrap intervals against scipy, the normal interval, plain resampling, and by how often they hold the truth."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from sparseguard.core.errors import DataError
from sparseguard.stats import bootstrap_interval, bootstrap_intervals, paired_difference
from sparseguard.stats.bootstrap import FEW, RESAMPLES

DISTRIBUTIONS = {
    "normal": lambda rng, n: rng.normal(20.0, 3.0, n),
    "skewed": lambda rng, n: rng.exponential(1.0, n),
    "binary": lambda rng, n: (rng.random(n) < 0.3).astype(float),
}


def draws(name, n, seed=0):
    return DISTRIBUTIONS[name](np.random.default_rng(seed), n)


def of_scipy(values, method, seed, resamples, confidence=0.95):
    interval = scipy.stats.bootstrap(
        (values,),
        np.mean,
        method=method,
        n_resamples=resamples,
        batch=500,
        confidence_level=confidence,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("n", "confidence"), [(2, 0.95), (9, 0.95), (29, 0.9), (30, 0.95), (400, 0.9)])
def test_it_is_scipys_from_the_same_draws(name, n, confidence):
    values = draws(name, n, seed=n)
    if np.ptp(values) == 0:
        values[0] = 1 - values[0]
    method = "BCa" if n < 30 else "percentile"
    expected = of_scipy(values, method, 0, RESAMPLES, confidence)
    assert bootstrap_interval(values, confidence) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert bootstrap_interval(values, confidence, 500, seed=7) == pytest.approx(
        of_scipy(values, method, 7, 500, confidence), rel=1e-9, abs=1e-9
    )


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [30, 400, 2000])
def test_it_is_that_of_many_other_draws_within_monte_carlo_error(name, n):
    values = draws(name, n, seed=n)
    expected = of_scipy(values, "percentile", 1, 20_000)
    # An end is a 2.5 % quantile of 2,000 means: sqrt(0.025 * 0.975 / 2000) / density is 0.06 of their deviation.
    deviation = values.std() / np.sqrt(n)
    grain = 1.0 / n if name == "binary" else 0.0
    assert bootstrap_interval(values) == pytest.approx(expected, abs=4.5 * 0.063 * deviation + grain)


def test_of_many_images_it_is_the_normal_interval():
    values = draws("skewed", 20_000)
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


@pytest.mark.parametrize(("name", "truth"), [("normal", 20.0), ("skewed", 1.0)])
def test_it_holds_the_truth_as_often_as_it_says(name, truth):
    covered = 0
    for seed in range(300):
        low, high = bootstrap_interval(draws(name, 100, seed), 0.9, 500, seed)
        covered += low < truth < high
    assert 0.83 < covered / 300 < 0.95  # 0.9 less a little for skewness, 3 standard errors of 0.017


def test_of_few_skewed_scores_it_holds_the_truth_more_often_than_a_percentile_interval():
    bca = percentile = 0
    for seed in range(400):
        values = draws("skewed", 12, seed)
        low, high = bootstrap_interval(values)
        bca += low < 1 < high
        means = values[np.random.default_rng(0).integers(0, 12, (2000, 12))].mean(1)
        low, high = np.quantile(means, (0.025, 0.975))
        percentile += low < 1 < high
    assert percentile < bca
    assert bca / 400 > 0.84


def test_it_is_plain_resampling():
    values = draws("normal", 40)
    generator = np.random.default_rng(0)
    means = [values[generator.integers(0, 40, size=40)].mean() for _ in range(RESAMPLES)]
    assert bootstrap_interval(values) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))))


@pytest.mark.parametrize("n", [5, FEW - 1, FEW, 50])
def test_it_is_the_same_every_time_and_for_several_scores_at_once(n):
    scores = np.stack([draws("normal", n, seed) for seed in range(3)] + [np.full(n, 2.5)])
    single = [bootstrap_interval(row) for row in scores]
    assert single == [pytest.approx(interval) for interval in bootstrap_intervals(scores)]
    assert single[0] == bootstrap_interval(scores[0])
    assert single[0] != bootstrap_interval(scores[0], seed=4)
    assert single[3] == (2.5, 2.5)


def test_the_draws_of_very_many_images_are_made_in_parts_of_one_stream():
    """Above 16 M values draws are not kept: the interval is that of one draw after the other."""
    n, resamples = 90_000, 200
    values = draws("skewed", n)
    generator = np.random.default_rng(3)
    means = [values[generator.integers(0, n, size=n)].mean() for _ in range(resamples)]
    expected = tuple(np.quantile(means, (0.025, 0.975)))
    assert bootstrap_interval(values, resamples=resamples, seed=3) == pytest.approx(expected, rel=1e-9)


def test_of_less_than_two_images_there_is_none():
    assert bootstrap_interval(np.ones(1)) is None
    assert bootstrap_interval(np.ones(0)) is None


def test_a_paired_difference_is_the_interval_of_the_differences():
    first = draws("skewed", 200, 1)
    second = first - 0.3 + 0.01 * draws("skewed", 200, 2)
    result = paired_difference(first, second)
    assert result.n == 200
    assert result.mean == pytest.approx((first - second).mean())
    assert result.interval == bootstrap_interval(first - second)
    low, high = result.interval
    assert 0 < high - low < 0.01  # the images themselves vary a hundred times as much
    assert paired_difference(second, first).mean == pytest.approx(-result.mean)
    assert paired_difference(first[:1], second[:1]).interval is None


def test_unpaired_empty_or_broken_scores_are_refused():
    with pytest.raises(DataError, match="got 3 and 4"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(DataError, match="got 0 and 0"):
        paired_difference(np.ones(0), np.ones(0))
    with pytest.raises(DataError, match="1 are not"):
        bootstrap_interval(np.array([1.0, np.inf]))
    with pytest.raises(DataError, match="1 are not"):
        paired_difference(np.array([np.nan]), np.ones(1))


def test_statistics_need_neither_torch_nor_scipys_slow_parts_to_be_imported():
    code = (
        "import sys, numpy as np; from sparseguard.stats import bootstrap_interval, summarize_seeds;"
        "bootstrap_interval(np.arange(100.0)); summarize_seeds([1.0, 2.0]);"
        "print([name for name in ('torch', 'scipy.stats') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
