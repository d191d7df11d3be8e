from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sparseguard.bounds import AffineMap, fit_affine_map, split_null_space
from sparseguard.bounds.base import mean_psnr


def _images(n: int, seed: int) -> Tensor:
    """Images that differ in 6 ways only, so that what is hidden can be guessed from what is seen."""
    directions = torch.rand(6, 64, generator=torch.Generator().manual_seed(9))
    weights = torch.rand(n, 6, generator=torch.Generator().manual_seed(seed)) / 6
    return (weights @ directions).view(n, 1, 8, 8)


def _mapped(layer: nn.Module, images: Tensor) -> AffineMap:
    with torch.no_grad():
        result = fit_affine_map(lambda batch: layer(batch.flatten(1) * 2 - 1), images)
    assert result is not None
    return result


def _linear(rank: int, out: int = 20) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, rank), nn.Linear(rank, out))


@pytest.mark.parametrize("rank", [3, 10])
def test_matrix_rank_and_null_space_are_those_of_the_weights(rank: int) -> None:
    layers, images = _linear(rank), torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    result = _mapped(layers, images)
    weights = (2 * layers[1].weight.double() @ layers[0].weight.double()).detach()
    torch.testing.assert_close(result.weights, weights, atol=1e-6, rtol=0)
    assert result.rank == rank
    assert not result.complete
    singular = torch.linalg.svdvals(weights)[:rank]
    assert result.condition == pytest.approx(float(singular[0] / singular[-1]), rel=1e-4)
    auxiliary = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    parted = split_null_space(result, auxiliary, images)
    projector = torch.linalg.pinv(weights) @ weights
    x, mean = images.double().flatten(1), auxiliary.double().flatten(1).mean(0)
    expected = x @ projector + mean @ (torch.eye(64) - projector)
    torch.testing.assert_close(parted.from_mean.double().flatten(1), expected, atol=1e-4, rtol=0)
    null = (x - mean) @ (torch.eye(64) - projector)
    assert parted.hidden == pytest.approx(float(null.square().sum() / (x - mean).square().sum()), rel=1e-4)
    for part in (parted.from_mean, parted.estimated):  # whatever is put in the null space, the outputs agree
        torch.testing.assert_close(
            layers(part.flatten(1) * 2 - 1), layers(images.flatten(1) * 2 - 1), atol=1e-4, rtol=0
        )


def test_null_part_is_guessed_where_images_have_few_degrees_of_freedom() -> None:
    images = _images(30, 1)
    parted = split_null_space(_mapped(_linear(10), images), _images(200, 0), images)
    assert mean_psnr(parted.estimated, images) > 60
    assert mean_psnr(parted.estimated, images) > mean_psnr(parted.from_mean, images) + 20
    assert parted.psnr(images) == (mean_psnr(parted.from_mean, images), mean_psnr(parted.estimated, images))


def test_null_part_is_the_linear_estimate_of_the_covariance() -> None:
    generator = torch.Generator().manual_seed(0)
    covariance = torch.randn(64, 64, generator=generator) / 80
    auxiliary, images = (0.5 + torch.randn(n, 64, generator=generator) @ covariance for n in (20_000, 500))
    mapping = _mapped(_linear(16), auxiliary[:50].view(-1, 1, 8, 8))
    parted = split_null_space(mapping, auxiliary.view(-1, 1, 8, 8), images.view(-1, 1, 8, 8))
    c, a = (covariance.T @ covariance).double(), mapping.rows
    best = 0.5 + (images.double() - 0.5) @ a.T @ torch.linalg.pinv(a @ c @ a.T) @ a @ c
    ours, least = (float((guess - images).square().mean()) for guess in (parted.estimated.flatten(1), best))
    assert ours == pytest.approx(least, rel=0.02)


def test_complete_map_hides_nothing() -> None:
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    result = _mapped(nn.Flatten(), images)
    assert result.complete
    assert result.condition == pytest.approx(1)
    parted = split_null_space(result, images, images)
    assert parted.hidden < 1e-12
    assert parted.psnr(images) == (100.0, 100.0)


def test_map_of_zeros_hides_everything() -> None:
    images = _images(20, 0)
    result = fit_affine_map(lambda batch: torch.full((len(batch), 3), 2.0), images)
    assert result is not None
    assert result.rank == 0
    parted = split_null_space(result, images, images)
    assert parted.hidden == pytest.approx(1)
    torch.testing.assert_close(parted.estimated, images.mean(0, keepdim=True).expand(20, -1, -1, -1))


def test_maps_that_are_not_affine_give_none() -> None:
    images, linear = _images(20, 0), _linear(10)
    with torch.no_grad():
        for bent in (
            lambda batch: torch.relu(linear(batch.flatten(1))),
            lambda batch: batch.square(),
            lambda batch: batch + 0.01 * torch.randn_like(batch),
            lambda batch: batch / batch.flatten(1).norm(dim=1).view(-1, 1, 1, 1),
            lambda batch: torch.clamp(batch, 0.0, 0.3),
        ):
            assert fit_affine_map(bent, images) is None
