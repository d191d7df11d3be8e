"""Scores of sets against closed forms, scipy, torch-fidelity and slow loops."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from sparseguard.core.errors import DataError
from sparseguard.metrics import SetScore, frechet_distance, kernel_distance, prdc, subset
from sparseguard.metrics import distribution as sets


def normal(n, d, seed=1):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(n=120, m=90, d=7):
    mix = normal(d, d, seed=9)
    return normal(n, d) @ mix, 0.7 * normal(m, d, seed=2) @ mix.T + 0.4


def exactly(mean, root):
    """Points whose sample mean is ``mean`` and whose sample covariance is ``root @ root.T``."""
    points = normal(50, len(mean))
    points = points - points.mean(0)
    white = points @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(points.T))).T
    return white @ root.T + mean


def test_frechet_distance_of_gaussians_with_a_common_basis_has_a_closed_form():
    first, second = torch.tensor([1.0, 2.0, 0.5, 3.0]).double(), torch.tensor([2.0, 0.1, 0.5, 4.0]).double()
    basis = torch.linalg.qr(normal(4, 4, seed=3)).Q
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5]).double()
    real = exactly(torch.zeros(4).double(), basis * first)
    made = exactly(shift, basis * second)
    expected = shift.square().sum() + (first - second).square().sum()
    assert frechet_distance(made, real).value == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_distance_is_that_of_scipys_square_root():
    real, made = pair()
    first, second = np.cov(real.numpy(), rowvar=False), np.cov(made.numpy(), rowvar=False)
    shift = real.mean(0) - made.mean(0)
    expected = float(shift @ shift) + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(made, real).value == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(real, made).value == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_covariances_without_full_rank_is_that_of_singular_values():
    real, made = normal(30, 60), normal(25, 60, seed=2) + 0.1
    a, b = (real - real.mean(0)) / math.sqrt(29), (made - made.mean(0)) / math.sqrt(24)
    shift = real.mean(0) - made.mean(0)
    # the trace of the square root is the sum of the singular values of A B^T, whose squares are S_r S_m's eigenvalues
    expected = shift @ shift + a.square().sum() + b.square().sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()
    assert frechet_distance(made, real, minimum=2).value == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_distance_of_a_copy_is_zero():
    real = normal(80, 5)
    assert frechet_distance(real, real).value == pytest.approx(0, abs=1e-9)
    assert frechet_distance(real, real.flip(0)).value == pytest.approx(0, abs=1e-9)
    constant = torch.ones(80, 5)
    assert frechet_distance(constant, constant).value == 0.0


def test_float32_features_are_computed_with_in_float64():
    real, made = (x.float() for x in pair())
    assert frechet_distance(made, real).value == frechet_distance(made.double(), real.double()).value


def slow_kernel_distance(real, made):
    def kernel(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    n, m = len(real), len(made)
    rr = np.mean([kernel(real[i], real[j]) for i in range(n) for j in range(n) if i != j])
    mm = np.mean([kernel(made[i], made[j]) for i in range(m) for j in range(m) if i != j])
    rm = np.mean([kernel(x, y) for x in real for y in made])
    return rr + mm - 2 * rm


def test_kernel_distance_is_the_slow_loop(monkeypatch):
    real, made = pair(25, 31, 4)
    expected = slow_kernel_distance(real.numpy(), made.numpy())
    assert kernel_distance(made, real).value == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(sets, "CHUNK", 10)
    assert kernel_distance(made, real).value == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_of_one_distribution_is_zero_on_average():
    values = [kernel_distance(normal(40, 3, seed=s), normal(40, 3, seed=500 + s)).value for s in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))
    assert min(values) < 0


def test_distances_are_those_of_torch_fidelity():
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    real, made = pair(100, 100)
    first, second = (fid.fid_features_to_statistics(x) for x in (real, made))
    theirs = fid.fid_statistics_to_metric(first, second, verbose=False)[fid.KEY_METRIC_FID]
    assert frechet_distance(made, real).value == pytest.approx(theirs, rel=1e-9)
    theirs = kid.kernel_mmd(real.numpy(), made.numpy())
    assert kernel_distance(made, real).value == pytest.approx(float(theirs), rel=1e-9)


def slow_prdc(real, made, k):
    def distance(x, y):
        return math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))

    def radii(points):
        return [sorted(distance(x, y) for j, y in enumerate(points) if j != i)[k - 1] for i, x in enumerate(points)]

    around_real, around_made = radii(real), radii(made)
    inside = [[distance(x, y) <= radius for y in made] for x, radius in zip(real, around_real, strict=True)]
    recalled = [any(distance(x, y) <= r for y, r in zip(made, around_made, strict=True)) for x in real]
    return {
        "precision": np.mean([any(row[j] for row in inside) for j in range(len(made))]),
        "recall": np.mean(recalled),
        "density": np.sum(inside) / (k * len(made)),
        "coverage": np.mean([any(row) for row in inside]),
    }


@pytest.mark.parametrize("k", [1, 3])
def test_prdc_is_the_slow_loop(k, monkeypatch):
    real, made = normal(40, 3), 0.6 * normal(30, 3, seed=2) + 0.7
    expected = slow_prdc(real.tolist(), made.tolist(), k)
    assert all(0 < value < 1.5 for value in expected.values())  # nothing trivial
    assert {name: score.value for name, score in prdc(made, real, k).items()} == pytest.approx(expected)
    monkeypatch.setattr(sets, "CHUNK", 7)
    assert {name: score.value for name, score in prdc(made, real, k).items()} == pytest.approx(expected)


def test_prdc_of_copies_far_sets_and_a_single_answer():
    real = normal(50, 4)
    # k + 1 of a set's points lie in each ball, so a copy's density is (k + 1) / k
    expected = {"precision": 1, "recall": 1, "density": 1.2, "coverage": 1}
    assert {name: score.value for name, score in prdc(real, real).items()} == pytest.approx(expected)
    assert {score.value for score in prdc(real + 100, real).values()} == {0.0}
    collapsed = prdc(real[:1].expand(50, -1) + 1e-3, real)
    assert collapsed["precision"].value == 1
    assert collapsed["recall"].value == 0
    assert collapsed["coverage"].value < 0.5


def test_far_from_the_origin_neighbors_are_the_same():
    real, made = normal(60, 5), 0.8 * normal(60, 5, seed=2) + 0.5
    near = {name: score.value for name, score in prdc(made, real).items()}
    assert {name: score.value for name, score in prdc(made + 1000, real + 1000).items()} == near


def test_too_few_images_are_not_available_and_say_why():
    few = normal(7, 7)
    score = frechet_distance(few, normal(100, 7))
    assert score == SetScore(
        value=None, reason="a Fréchet distance in these features needs 8 images of each kind, there are 7", n=7
    )
    assert frechet_distance(normal(100, 7), normal(8, 7)).value is not None
    assert "2,048" in frechet_distance(normal(100, 7), normal(100, 7), minimum=2048).reason
    assert kernel_distance(few, few[:1]).reason == "a kernel distance needs 2 images of each kind, there are 1"
    assert all("needs 6 images" in score.reason for score in prdc(few[:5], few).values())
    assert all(score.value is not None for score in prdc(few[:6], few).values())


def test_a_score_has_a_value_or_a_reason():
    for value, reason in ((None, None), (1.0, "both")):
        with pytest.raises(ValueError, match="either"):
            SetScore(value=value, reason=reason, n=3)


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance, prdc])
def test_features_that_mean_nothing_are_refused(metric):
    broken = normal(20, 3)
    broken[4, 1] = torch.nan
    with pytest.raises(DataError, match="finite"):
        metric(normal(20, 3), broken)
    with pytest.raises(DataError, match="3 and of 4 dimensions"):
        metric(normal(20, 3), normal(20, 4))


def test_subset_is_fixed_and_without_repetition():
    places = subset(5000)
    assert len(places.unique()) == 2048
    assert torch.equal(places, subset(5000))
    assert torch.equal(places, places.sort().values)
    assert torch.equal(subset(100), torch.arange(100))
    assert abs(places.double().mean().item() - 2500) < 5 * 5000 / math.sqrt(12 * 2048)
