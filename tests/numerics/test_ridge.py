"""Ridge regression against the normal equations."""

import numpy as np
import pytest
import torch

from sparseguard.numerics.ridge import PENALTIES, fit_ridge


def draws(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(n, d):
    """Return noisy linear features of pixels, for training and validation."""
    pixels = torch.rand(n + 15, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    features = pixels @ draws(6, d, seed=3) + 0.3 * draws(n + 15, d, seed=4) + 5
    return features[:n], pixels[:n], features[n:], pixels[n:]


def normal_equations(features, pixels, penalty):
    """Return weights and the means they go with."""
    z, x = features - features.mean(0), pixels - pixels.mean(0)
    alpha = penalty * z.square().sum() / z.shape[1]
    return torch.linalg.solve(z.T @ z + alpha * torch.eye(z.shape[1], dtype=z.dtype), z.T @ x)


@pytest.mark.parametrize(("n", "d"), [(60, 10), (20, 35), (25, 25)])
def test_ridge_solves_the_normal_equations_at_its_penalty(n, d):
    features, pixels, val_features, val_pixels = problem(n, d)
    fit = fit_ridge(features, pixels, val_features, val_pixels)
    torch.testing.assert_close(
        fit.mapping.weights, normal_equations(features, pixels, fit.penalty), rtol=1e-6, atol=1e-8
    )
    reached = {}
    for candidate in PENALTIES:
        guess = (val_features - features.mean(0)) @ normal_equations(features, pixels, candidate) + pixels.mean(0)
        errors = (guess.clamp(0, 1) - val_pixels).square().mean(1).numpy()
        reached[candidate] = float(np.mean(-10 * np.log10(errors)))
    assert fit.psnr == pytest.approx(reached[fit.penalty], abs=1e-5)
    assert fit.psnr == pytest.approx(max(reached.values()), abs=1e-4)
