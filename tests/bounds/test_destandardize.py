from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparseguard.bounds import PixelRange
from sparseguard.numerics.ridge import LEAVE_ONE_OUT_PENALTIES, fit_ridge_leave_one_out
from sparseguard.sparse import standardize


def _filling(n: int, seed: int, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, channels, 8, 8, generator=generator) ** torch.linspace(0.5, 3, n).view(-1, 1, 1, 1)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_fill_the_range_are_restored_exactly(channels: int) -> None:
    auxiliary, images = _filling(300, 0, channels), _filling(50, 1, channels)
    estimate = PixelRange.fit(standardize(auxiliary), auxiliary)
    u = standardize(images)
    low, high = u.amin((1, 2, 3)), u.amax((1, 2, 3))
    mean, spread = estimate.statistics(u)
    torch.testing.assert_close(spread.flatten(), 1 / (high - low), atol=1e-4, rtol=0)  # closed form
    torch.testing.assert_close(mean.flatten(), -low / (high - low), atol=1e-4, rtol=0)
    torch.testing.assert_close(estimate(u), images, atol=1e-3, rtol=0)


def test_a_constant_brightness_is_learned_and_images_stay_in_range() -> None:
    auxiliary = 0.2 + 0.5 * _filling(200, 0)
    estimate = PixelRange.fit(standardize(auxiliary), auxiliary)
    images = 0.2 + 0.5 * _filling(20, 1)
    torch.testing.assert_close(estimate(standardize(images)), images, atol=1e-3, rtol=0)
    wild = estimate(100 * standardize(images))
    assert float(wild.min()) >= 0
    assert float(wild.max()) <= 1


def test_learning_on_reconstructions_beats_learning_on_the_images_themselves() -> None:
    auxiliary, images = _filling(300, 0), _filling(100, 1)
    generator = torch.Generator().manual_seed(2)

    def blurred(batch: Tensor) -> Tensor:
        return standardize(batch) + 0.3 * torch.randn(batch.shape, generator=generator)

    distorted = blurred(images)
    own = PixelRange.fit(standardize(auxiliary), auxiliary)(distorted)
    fitted = PixelRange.fit(blurred(auxiliary), auxiliary)(distorted)
    assert float((fitted - images).square().mean()) < float((own - images).square().mean())


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        PixelRange.fit(torch.zeros(2, 1, 4, 4), torch.zeros(3, 1, 4, 4))


def test_linear_map_is_the_ridge_regression_with_the_least_leave_one_out_error() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    weights = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    targets = features @ weights + torch.randn(12, 2, generator=generator, dtype=torch.float64)
    unit = float(torch.linalg.svdvals(features - features.mean(0)).square().mean())

    def ridge(f: Tensor, t: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        centered = f - f.mean(0)
        weights = torch.linalg.solve(
            centered.T @ centered + penalty * unit * torch.eye(5), centered.T @ (t - t.mean(0))
        )
        return weights, t.mean(0) - f.mean(0) @ weights

    def left_out(penalty: float) -> float:
        errors = []
        for i in range(12):
            keep = torch.arange(12) != i
            weights, offset = ridge(features[keep], targets[keep], penalty)
            errors.append((features[i] @ weights + offset - targets[i]).square().mean())
        return float(torch.stack(errors).mean())

    errors = {penalty: left_out(penalty) for penalty in LEAVE_ONE_OUT_PENALTIES}
    best = min(errors, key=lambda penalty: errors[penalty])
    result = fit_ridge_leave_one_out(features, targets)
    weights, offset = ridge(features, targets, best)
    torch.testing.assert_close(result.weights, weights)
    torch.testing.assert_close(result(features), features @ weights + offset)
    assert result.error == pytest.approx(errors[best], rel=1e-6)


def test_linear_map_finds_a_linear_relation_in_fewer_samples_than_features() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(30, 3, generator=generator)
    features = hidden @ torch.randn(3, 50, generator=generator)
    targets = hidden @ torch.randn(3, 2, generator=generator) + 5
    torch.testing.assert_close(fit_ridge_leave_one_out(features, targets)(features).float(), targets, atol=1e-3, rtol=0)
