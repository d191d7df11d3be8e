"""Tango's test, against a numerical maximum of the likelihood, McNemar's test, another library and simulation."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from sparseguard.stats import SIGNIFICANCE, noninferiority_test
from sparseguard.stats.noninferiority import constrained_probability, tango_statistic


@st.composite
def tables(draw):
    n = draw(st.integers(1, 3000))
    lost = draw(st.integers(0, n))
    return float(lost), float(draw(st.integers(0, n - lost))), n


def likelihood(q, lost, gained, n, margin):
    """The multinomial log-likelihood where a lost image has probability q + margin."""
    cells = ((lost, q + margin), (gained, q), (n - lost - gained, 1 - 2 * q - margin))
    return sum(count * math.log(max(p, 1e-300)) for count, p in cells if count)


@given(tables(), st.floats(0.001, 0.9))
def test_the_closed_form_maximizes_the_likelihood(table, margin):
    highest = (1 - margin) / 2
    found = scipy.optimize.minimize_scalar(
        lambda q: -likelihood(q, *table, margin), bounds=(0.0, highest), method="bounded", options={"xatol": 1e-12}
    )
    q = constrained_probability(*table, margin)
    assert -1e-12 <= q <= highest + 1e-9
    assert likelihood(min(max(q, 0.0), highest), *table, margin) >= -found.fun - 1e-6


@pytest.mark.parametrize(
    ("lost", "gained", "n", "margin"),
    [(12, 10, 600, 0.05), (60, 20, 600, 0.05), (3, 0, 200, 0.1), (0, 0, 90, 0.05), (40, 40, 120, 0.2)],
)
def test_the_statistic_is_that_of_a_numerical_maximum(lost, gained, n, margin):
    found = scipy.optimize.minimize_scalar(
        lambda q: -likelihood(q, lost, gained, n, margin),
        bounds=(0.0, (1 - margin) / 2),
        method="bounded",
        options={"xatol": 1e-13},
    )
    variance = n * (found.x + margin + found.x - margin**2)
    expected = (lost - gained - n * margin) / math.sqrt(variance)
    result = noninferiority_test(float(lost), float(gained), n, margin)
    assert result.z == pytest.approx(expected, rel=1e-5)
    assert result.p == pytest.approx(scipy.stats.norm.cdf(expected), rel=1e-4)
    assert result.drop == pytest.approx((lost - gained) / n)
    assert result.qualifies == (result.p <= SIGNIFICANCE)


@given(tables())
def test_without_a_margin_it_is_mcnemars_score(table):
    lost, gained, _ = table
    expected = (lost - gained) / math.sqrt(lost + gained) if lost + gained else 0.0
    assert tango_statistic(*table, 0.0) == pytest.approx(expected, abs=1e-9)


@given(tables(), st.floats(0.001, 0.9))
def test_exchanging_the_models_changes_the_sign(table, margin):
    lost, gained, n = table
    assert tango_statistic(gained, lost, n, -margin) == pytest.approx(
        -tango_statistic(lost, gained, n, margin), rel=1e-6, abs=1e-6
    )


@pytest.mark.parametrize("end", [-0.1240, -0.0054])
def test_its_95_percent_interval_is_that_of_another_library(end):
    """6 and 16 of 161 pairs: the interval that R's contingencytables gives, to four digits."""
    assert abs(tango_statistic(6.0, 16.0, 161, end)) == pytest.approx(scipy.stats.norm.ppf(0.975), abs=0.003)


@pytest.mark.parametrize(("n", "gained", "margin"), [(600, 0.05, 0.05), (300, 0.1, 0.05), (1500, 0.02, 0.02)])
def test_a_setting_that_just_loses_the_margin_qualifies_as_often_as_the_level_says(n, gained, margin):
    draws = 8000
    cells = np.random.default_rng(n).multinomial(n, (gained + margin, gained, 1 - 2 * gained - margin), size=draws)
    qualified = sum(noninferiority_test(float(a), float(b), n, margin).qualifies for a, b, _ in cells)
    error = math.sqrt(SIGNIFICANCE * (1 - SIGNIFICANCE) / draws)
    assert qualified / draws == pytest.approx(SIGNIFICANCE, abs=4 * error)


@given(tables(), st.floats(0.001, 0.9), st.floats(0.001, 0.9))
def test_a_wider_margin_is_never_harder(table, first, second):
    narrow, wide = sorted((first, second))
    assert tango_statistic(*table, wide) <= tango_statistic(*table, narrow) + 1e-6
