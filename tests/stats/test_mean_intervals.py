import math

import numpy as np
import pytest
import scipy.stats

from sparseguard.core.errors import DataError
from sparseguard.stats import normal_interval, summarize_seeds, t_half_width


@pytest.mark.parametrize("n", [2, 3, 5, 10, 31, 201])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_half_width_is_scipys(n, confidence):
    values = np.random.default_rng(n).normal(size=n)
    low, high = scipy.stats.t.interval(confidence, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    assert t_half_width(values, confidence) == pytest.approx((high - low) / 2, rel=1e-12)
    assert t_half_width(values[:1], confidence) == 0


def test_half_width_of_five_values_has_the_tables_quantile():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert t_half_width(values) == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=2e-4)  # t of 4 degrees of freedom


def test_summary_of_seeds_is_scipys():
    means = [17.2, 17.9, 16.8, 17.3, 18.4]
    summary = summarize_seeds(means)
    expected = scipy.stats.t.interval(0.95, 4, loc=np.mean(means), scale=scipy.stats.sem(means))
    assert summary.mean == pytest.approx(np.mean(means))
    assert summary.std == pytest.approx(np.std(means, ddof=1))
    assert summary.interval == pytest.approx(expected)
    assert summary.n == 5


def test_one_seed_has_no_interval():
    summary = summarize_seeds([3.5])
    assert (summary.mean, summary.std, summary.interval, summary.n) == (3.5, None, None, 1)


@pytest.mark.parametrize("means", [[], [1.0, math.nan]])
def test_no_or_broken_means_are_refused(means):
    with pytest.raises(DataError, match="over seeds"):
        summarize_seeds(means)


def test_normal_interval_is_scipys():
    expected = scipy.stats.norm.interval(0.95, loc=3.0, scale=2.0 / 10)
    assert normal_interval(3.0, 2.0, 100) == pytest.approx(expected, abs=1e-5)
