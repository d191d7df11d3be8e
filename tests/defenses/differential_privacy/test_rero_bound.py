from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from sparseguard.defenses.differential_privacy._accounting import compute_epsilon
from sparseguard.defenses.differential_privacy._rero_bound import SLACK, reconstruction_bound


def bound(prior: float, sigma: float, rate: float, steps: int) -> float:
    return reconstruction_bound(prior=prior, noise_multiplier=sigma, rate=rate, steps=steps)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(
    log_prior=st.floats(-7, -0.01),
    log_sigma=st.floats(-0.7, 2),
    steps=st.integers(1, 1000),
)
def test_with_every_image_in_every_batch_it_is_the_closed_form(log_prior: float, log_sigma: float, steps: int) -> None:
    prior, sigma = 10**log_prior, 10**log_sigma
    exact = norm.cdf(norm.ppf(prior) + math.sqrt(steps) / sigma)
    found = bound(prior, sigma, 1.0, steps)
    assert exact - 1e-12 <= found <= exact * 1.002 + 2 * SLACK


@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "prior"),
    [(1.0, 0.1, 30, 0.01), (0.7, 0.3, 5, 0.1), (2.0, 0.5, 20, 0.5), (0.5, 0.02, 100, 0.9), (0.3, 0.2, 3, 0.05)],
)
def test_by_sampling(sigma: float, rate: float, steps: int, prior: float) -> None:
    """The test of Neyman and Pearson on sampled steps, with its threshold from samples without the record."""
    source, n = np.random.default_rng(0), 100_000

    def losses(shifted: bool) -> np.ndarray:
        total = np.zeros(n)
        for _ in range(steps):
            x = sigma * source.standard_normal(n) + (shifted & (source.random(n) < rate))
            total += np.log1p(rate * np.expm1((2 * x - 1) / (2 * sigma**2)))
        return total

    without, with_record = losses(False), losses(True)
    threshold = np.quantile(without, 1 - prior)
    power = (with_record > threshold).mean()
    slope = math.exp(threshold)  # of the power in the prior
    spread = math.sqrt(power * (1 - power) / n) + slope * math.sqrt(prior * (1 - prior) / n)
    assert bound(prior, sigma, rate, steps) == pytest.approx(power, abs=4 * spread + 2e-4)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(0.8, 0.04, 300), (1.1, 0.01, 2000), (3.0, 0.5, 50)])
def test_it_keeps_what_the_accountants_epsilon_promises(sigma: float, rate: float, steps: int) -> None:
    delta = 1e-4
    epsilon = compute_epsilon(noise_multiplier=sigma, rate=rate, steps=steps, delta=delta)
    for prior in (1e-6, 1e-2):
        assert bound(prior, sigma, rate, steps) <= math.exp(epsilon) * prior + delta + SLACK


VALUES = st.tuples(st.floats(1e-5, 0.9), st.floats(0.3, 5), st.floats(0.01, 0.9), st.integers(1, 300))


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(values=VALUES, more=st.floats(1.1, 2))
def test_it_rises_with_all_that_helps_the_attacker(values: tuple[float, float, float, int], more: float) -> None:
    prior, sigma, rate, steps = values
    found = bound(*values)
    assert prior <= found <= 1
    assert found <= 1 - (1 - rate) ** steps * (1 - prior) + 1e-4 * found + SLACK  # the image may be in no batch at all
    tolerance = 1e-3 * found + SLACK
    assert bound(min(1.0, prior * more), sigma, rate, steps) >= found - tolerance
    assert bound(prior, sigma / more, rate, steps) >= found - tolerance
    assert bound(prior, sigma, min(1.0, rate * more), steps) >= found - tolerance
    assert bound(prior, sigma, rate, math.ceil(steps * more)) >= found - tolerance


@pytest.mark.parametrize(("sigma", "steps"), [(0.01, 1), (0.1, 300), (0.1, 100_000), (300.0, 1), (300.0, 100_000)])
def test_extreme_noise_gives_the_limits(sigma: float, steps: int) -> None:
    rate, prior = 1e-4, 1e-3
    seen = 1 - (1 - rate) ** steps * (1 - prior)
    if sigma < 1:
        assert bound(prior, sigma, rate, steps) == pytest.approx(seen, rel=2e-2)
    else:
        assert bound(prior, sigma, rate, steps) == pytest.approx(prior, rel=1e-2)


@pytest.mark.parametrize("wrong", [(0.0, 1.0, 0.1, 1), (0.1, 0.0, 0.1, 1), (0.1, 1.0, 0.0, 1), (0.1, 1.0, 0.1, 0)])
def test_values_out_of_range_are_refused(wrong: tuple[float, float, float, int]) -> None:
    with pytest.raises(ValueError, match="a bound needs"):
        bound(*wrong)
