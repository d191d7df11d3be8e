"""The metrics against scikit-image, scipy and slow loops."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sparseguard.metrics import METRICS, psnr, reidentification_at_1, ssim


def draws(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pair(*shape, noise=0.2):
    originals = draws(*shape)
    return (originals + noise * (draws(*shape, seed=2) - 0.5)).clamp(0, 1), originals


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_that_of_each_image(channels):
    ours, theirs = pair(5, channels, 9, 7)
    scores = psnr(ours, theirs)
    assert scores.shape == (5,)
    for score, a, b in zip(scores.tolist(), ours.double().numpy(), theirs.double().numpy(), strict=True):
        assert score == pytest.approx(10 * math.log10(1 / np.mean((a - b) ** 2)), abs=1e-3)
        assert score == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-3)


def test_psnr_of_a_copy_is_capped():
    images = draws(2, 1, 8, 8)
    assert psnr(images, images).tolist() == [100.0, 100.0]
    assert psnr(torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).tolist() == [0.0]


def ssim_map(a, b):
    """Return Wang et al.'s map with borders mirrored at the edge pixel."""

    def blur(image):
        return gaussian_filter(image, 1.5, mode="mirror", truncate=3.5)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, both = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_each_image(channels):
    ours, theirs = pair(4, channels, 32, 32, noise=0.6)
    for score, a, b in zip(ssim(ours, theirs).tolist(), ours.double().numpy(), theirs.double().numpy(), strict=True):
        maps = [ssim_map(x, y) for x, y in zip(a, b, strict=True)]
        assert score == pytest.approx(np.mean(maps), abs=1e-4)
        for x, y, ours_map in zip(a, b, maps, strict=True):  # the oracle itself agrees with scikit-image's interior
            theirs_map = structural_similarity(
                x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
            )[1]
            np.testing.assert_allclose(ours_map[5:-5, 5:-5], theirs_map[5:-5, 5:-5], atol=1e-9)


def test_ssim_of_a_copy_is_one():
    images = draws(3, 1, 16, 16)
    assert ssim(images, images).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def slow_reidentification(ours, theirs, pool, own):
    scores = []
    for i in range(len(ours)):
        reference, nearer, ties = np.sum((ours[i] - theirs[i]) ** 2), False, 0
        for j in range(len(pool)):
            if own is not None and own[i] == j:
                continue
            distance = np.sum((ours[i] - pool[j]) ** 2)
            if abs(distance - reference) < 1e-12:
                ties += 1
            elif distance < reference:
                nearer = True
        scores.append(0.0 if nearer else 1 / (1 + ties))
    return scores


@pytest.mark.parametrize("in_pool", [True, False])
def test_identified_is_the_slow_double_loop(in_pool):
    pool = draws(30, 1, 3, 3)
    pool[7] = pool[3]
    pool[8] = pool[3]  # three copies of one image
    own = torch.randperm(30, generator=torch.Generator().manual_seed(5))[:20]
    own[0] = 3
    originals = pool[own] if in_pool else draws(20, 1, 3, 3, seed=8)
    ours = (originals + 2 * (draws(20, 1, 3, 3, seed=6) - 0.5)).clamp(0, 1)
    ours[0] = originals[0]
    places = own if in_pool else None
    scores = reidentification_at_1(ours, originals, pool, places)
    expected = slow_reidentification(
        ours.double().numpy(),
        originals.double().numpy(),
        pool.double().numpy(),
        None if places is None else places.tolist(),
    )
    assert scores.tolist() == pytest.approx(expected)
    assert 0 < scores.mean() < 1  # the case is neither trivial nor hopeless


def test_copies_in_the_pool_share_the_point():
    pool = torch.stack([torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    assert reidentification_at_1(pool[:1], pool[:1], pool, torch.tensor([0])).tolist() == [0.5]
    assert reidentification_at_1(pool[:1], pool[:1], pool, None).tolist() == pytest.approx([1 / 3])
    assert reidentification_at_1(pool[2:], pool[2:], pool, torch.tensor([2])).tolist() == [1.0]
    assert reidentification_at_1(pool[2:], pool[:1], pool, torch.tensor([0])).tolist() == [0.0]


def test_a_constant_answer_scores_chance_exactly():
    pool = draws(25, 1, 4, 4)
    constant = pool.mean(0, keepdim=True).expand_as(pool)
    assert reidentification_at_1(constant, pool, pool, torch.arange(25)).mean().item() == pytest.approx(1 / 25)


def test_random_answers_score_about_chance():
    rounds = [
        reidentification_at_1(
            draws(100, 1, 4, 4, seed=s),
            draws(100, 1, 4, 4, seed=500 + s),
            draws(100, 1, 4, 4, seed=500 + s),
            torch.arange(100),
        )
        .mean()
        .item()
        for s in range(20)
    ]
    # 2000 trials of chance 1/100: five standard errors
    assert np.mean(rounds) == pytest.approx(0.01, abs=5 * math.sqrt(0.01 * 0.99 / 2000))


def test_every_metric_gives_one_number_an_image():
    ours, theirs = pair(6, 1, 16, 16)
    for metric in METRICS.values():
        scores = metric.compute(ours, theirs, theirs, torch.arange(6))
        assert scores.shape == (6,)
        assert scores.dtype == torch.float32
        assert metric.summary
