from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from sparseguard.bounds import PoolBound, compute_pool_bound
from sparseguard.bounds.bayes_noise import Noise, draw_standard_noise

TWO = torch.tensor([[-1.0], [1.0]])


def _binary_in_gaussian_noise(sigma: float, queries: int) -> tuple[float, float]:
    """Least mean squared error of x = -1 or 1 in noise, by integration, and the error-free decisions' share."""
    s = sigma / math.sqrt(queries)
    error, _ = quad(lambda y: (1 - math.tanh(y / s**2)) ** 2 * norm.pdf(y, 1, s), 1 - 12 * s, 1 + 12 * s)
    return error, float(norm.cdf(1 / s))


def _binary_in_laplace_noise(b: float) -> tuple[float, float]:
    """The same for Laplace noise; the posterior mean is tanh((|y + 1| - |y - 1|) / 2b)."""

    def integrand(y: float) -> float:
        mean = math.tanh((abs(y + 1) - abs(y - 1)) / (2 * b))
        return (1 - mean) ** 2 * math.exp(-abs(y - 1) / b) / (2 * b)

    error, _ = quad(integrand, 1 - 40 * b, 1 + 40 * b, points=[-1, 0, 1], limit=200)
    return error, 1 - math.exp(-1 / b) / 2


@pytest.mark.parametrize(("sigma", "queries"), [(0.5, 1), (1.0, 1), (2.0, 1), (2.0, 4)])
def test_two_images_in_gaussian_noise(sigma: float, queries: int) -> None:
    result = compute_pool_bound(TWO, TWO, noise="gaussian", scale=sigma, draws=20_000, queries=queries)
    error, right = _binary_in_gaussian_noise(sigma, queries)
    assert result.mse == pytest.approx(error, abs=4 * result.mse_error)
    assert result.identified == pytest.approx(right, abs=4 * result.identified_error + 1e-4)
    assert result.mse_error < 0.01
    assert result.psnr_of_mse == pytest.approx(-10 * math.log10(result.mse))


@pytest.mark.parametrize("b", [0.5, 1.0, 3.0])
def test_two_images_in_laplace_noise(b: float) -> None:
    result = compute_pool_bound(TWO, TWO, noise="laplace", scale=b, draws=20_000)
    error, right = _binary_in_laplace_noise(b)
    assert result.mse == pytest.approx(error, abs=4 * result.mse_error)
    assert result.identified == pytest.approx(right, abs=4 * result.identified_error)


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
@pytest.mark.parametrize("queries", [1, 3])
def test_a_pool_by_brute_force(noise: Noise, queries: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(7, 5, generator=generator)
    images = torch.rand(7, 1, 3, 3, generator=generator)
    result = compute_pool_bound(features, images, noise=noise, scale=0.8, draws=3, queries=queries, seed=5)
    noises = torch.Generator().manual_seed(5)
    errors, right = [], []
    drawn = [draw_standard_noise(noise, (21, 5), noises).numpy() for _ in range(queries)]
    for draw in range(3):
        for i in range(7):
            weights = np.ones(7)
            for j in range(7):
                for part in drawn:
                    gap = features[i].double().numpy() + 0.8 * part[7 * draw + i] - features[j].double().numpy()
                    power = (gap**2).sum() / (2 * 0.8**2) if noise == "gaussian" else np.abs(gap).sum() / 0.8
                    weights[j] *= math.exp(-power)
            mean = np.tensordot(weights / weights.sum(), images.double().numpy(), axes=1)
            errors.append(((mean - images[i].double().numpy()) ** 2).mean())
            right.append(weights.argmax() == i)
    assert result.mse == pytest.approx(float(np.mean(errors)), rel=1e-9)
    assert result.identified == pytest.approx(float(np.mean(right)))
    assert result.mean_psnr == pytest.approx(float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10)))))


def test_no_noise_identifies_all_and_endless_noise_none() -> None:
    generator = torch.Generator().manual_seed(0)
    features, images = torch.randn(20, 4, generator=generator), torch.rand(20, 1, 4, 4, generator=generator)

    def bound(scale: float) -> PoolBound:
        return compute_pool_bound(features, images, noise="gaussian", scale=scale, draws=20)

    assert bound(1e-4).mse < 1e-12
    assert bound(1e-4).identified == 1
    assert bound(1e5).mse == pytest.approx(float((images - images.mean(0)).square().mean()), rel=1e-3)
    assert bound(1e5).identified == pytest.approx(1 / 20, abs=0.05)
    assert [bound(scale).mse for scale in (0.3, 1, 3)] == sorted(bound(scale).mse for scale in (0.3, 1, 3))


def test_no_attacker_beats_it() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 1, 4, 4, generator=generator)
    features = images.flatten(1) @ torch.randn(16, 16, generator=generator)
    result = compute_pool_bound(features, images, noise="gaussian", scale=1.0, draws=50)
    noisy = features.repeat(50, 1) + torch.randn(2000, 16, generator=generator)
    nearest = torch.cdist(noisy, features).argmin(1)
    truth = torch.arange(40).repeat(50)
    linear = torch.linalg.lstsq(torch.cat([noisy, torch.ones(2000, 1)], 1), images.flatten(1).repeat(50, 1)).solution
    guesses = torch.cat([noisy, torch.ones(2000, 1)], 1) @ linear
    for guess in (images.flatten(1)[nearest], guesses):
        error = float((guess - images.flatten(1)[truth]).square().mean())
        assert result.mse < error
    assert result.identified == pytest.approx(float((nearest == truth).double().mean()), abs=0.03)


def test_the_noise_has_its_stated_deviation() -> None:
    for noise, variance in (("gaussian", 1.0), ("laplace", 2.0)):
        drawn = draw_standard_noise(noise, (200_000,), torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        assert float(drawn.var()) == pytest.approx(variance, rel=0.03)
        assert float(drawn.mean()) == pytest.approx(0, abs=0.02)
    assert float(drawn.abs().mean()) == pytest.approx(1, rel=0.02)


def test_the_standard_error_is_that_of_repeated_estimates() -> None:
    generator = torch.Generator().manual_seed(0)
    features, images = torch.randn(15, 3, generator=generator), torch.rand(15, 1, 2, 2, generator=generator)
    bounds = [
        compute_pool_bound(features, images, noise="gaussian", scale=1.0, draws=8, seed=seed) for seed in range(200)
    ]
    spread = float(np.std([bound.mse for bound in bounds], ddof=1))
    assert float(np.mean([bound.mse_error for bound in bounds])) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"draws": 0}, {"queries": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        compute_pool_bound(TWO, TWO, **{"noise": "gaussian", "scale": 1.0, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="as many features"):
        compute_pool_bound(TWO, TWO[:1], noise="gaussian", scale=1.0)
