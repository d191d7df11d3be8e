import numpy as np
import pytest
import scipy.stats

from sparseguard.report import bootstrap_interval
from sparseguard.report.analysis.intervals import RESAMPLES, bootstrap_intervals

DRAWS = {
    "normal": lambda rng, n: rng.normal(20.0, 3.0, n),
    "skewed": lambda rng, n: rng.exponential(1.0, n),
    "shares": lambda rng, n: (rng.random(n) < 0.3).astype(float),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("n", [30, 400, 2000])
def test_intervals_are_scipys_within_monte_carlo_error(name, n):
    values = DRAWS[name](np.random.default_rng(n), n)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, batch=500, rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap_interval(values)
    # An end is a 2.5 % quantile of 2,000 means: sqrt(0.025 * 0.975 / 2000) / density is 0.06 of their deviation.
    deviation = values.std() / np.sqrt(n)
    grain = 1.0 / n if name == "shares" else 0.0
    assert found == pytest.approx(tuple(expected), abs=4.5 * 0.063 * deviation + grain)


def test_intervals_are_the_same_every_time_and_in_any_company():
    values = np.random.default_rng(0).normal(size=(3, 50))
    alone = [bootstrap_interval(row) for row in values]
    assert alone == [pytest.approx(found) for found in bootstrap_intervals(values)]
    assert alone[0] == bootstrap_interval(values[0])


def test_intervals_are_those_of_plain_resampling():
    values = np.random.default_rng(0).normal(size=40)
    generator = np.random.default_rng(0)
    means = [values[generator.integers(0, 40, size=40)].mean() for _ in range(RESAMPLES)]
    assert bootstrap_interval(values) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))))


def test_one_image_has_no_interval_and_equal_scores_a_point():
    assert bootstrap_interval(np.array([3.0])) is None
    assert bootstrap_interval(np.array([])) is None
    assert bootstrap_interval(np.full(9, 3.0)) == pytest.approx((3.0, 3.0))
