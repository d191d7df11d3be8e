"""Measures of dependence against slow textbook forms, other libraries, closed cases and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from oracles.dcor_process import distance_correlations
from sparseguard.numerics.dependence import (
    center,
    coco,
    distance_correlation,
    gaussian_kernel,
    hsic,
    linear_kernel,
    normalized_hsic,
)
from sparseguard.numerics.distances import squared_distances_within

MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hsic": lambda x, z: hsic(gaussian_kernel(x, 1.0), linear_kernel(z)),
    "normalized": lambda x, z: normalized_hsic(gaussian_kernel(x, 1.0), linear_kernel(z)),
    "coco": lambda x, z: coco(gaussian_kernel(x, 1.0), linear_kernel(z)),
    "dcor": distance_correlation,
}
every = pytest.mark.parametrize("name", MEASURES)
batches = given(
    m=st.integers(2, 12),
    d=st.integers(1, 9),
    e=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    scale=st.floats(0.01, 20),
)
quick = settings(max_examples=60, deadline=None)


def drawn(m: int, d: int, e: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(m, d, generator=generator, dtype=torch.float64)
    mixed = x @ torch.randn(d, e, generator=generator, dtype=torch.float64)
    return x, mixed.tanh() + torch.randn(m, e, generator=generator, dtype=torch.float64)


def slow_gaussian(x: Any, sigma: float) -> Any:
    m, d = x.shape
    return np.array([[math.exp(-sum((x[i] - x[j]) ** 2) / (2 * sigma**2 * d)) for j in range(m)] for i in range(m)])


def slow_linear(x: Any) -> Any:
    return np.array([[sum(a * b for a, b in zip(one, other, strict=True)) for other in x] for one in x])


def slow_hsic(k: Any, ell: Any) -> float:
    """The trace written out as sums over indices."""
    m = len(k)
    pairs = sum(k[i, j] * ell[i, j] for i in range(m) for j in range(m))
    triples = sum(k[i, j] * ell[i, q] for i in range(m) for j in range(m) for q in range(m))
    return float(pairs - 2 / m * triples + k.sum() * ell.sum() / m**2) / (m - 1) ** 2


def released_hsic(k: Any, ell: Any) -> float:
    """One side centred, inverses formed, as in BiDO's released code."""
    m = len(k)
    eye = np.eye(m)
    kc, lc = (matrix @ (eye - np.ones((m, m)) / m) for matrix in (k, ell))
    rx, ry = (matrix @ np.linalg.inv(matrix + 1e-5 * m * eye) for matrix in (kc, lc))
    return float(sum(rx[i, j] * ry[j, i] for i in range(m) for j in range(m)))


def slow_coco(k: Any, ell: Any) -> float:
    m = len(k)
    h = np.eye(m) - np.ones((m, m)) / m
    return math.sqrt(np.linalg.svd(h @ k @ h @ h @ ell @ h)[1][0]) / m


def slow_dcor(x: Any, z: Any) -> float:
    def doubly_center(rows: Any) -> Any:
        m = len(rows)
        d = [[math.sqrt(sum((a - b) ** 2)) for b in rows] for a in rows]
        means = [sum(row) / m for row in d]
        whole = sum(means) / m
        return [[d[i][j] - means[i] - means[j] + whole for j in range(m)] for i in range(m)]

    def product(a: Any, b: Any) -> float:
        return sum(p * q for left, right in zip(a, b, strict=True) for p, q in zip(left, right, strict=True))

    a, b = doubly_center(x), doubly_center(z)
    return math.sqrt(max(product(a, b), 0) / math.sqrt(product(a, a) * product(b, b)))


@batches
@quick
def test_kernels_agree_with_loops(m: int, d: int, e: int, seed: int, scale: float) -> None:
    x, _ = drawn(m, d, e, seed, scale)
    np.testing.assert_allclose(gaussian_kernel(x, 2.0), slow_gaussian(x.numpy(), 2.0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(linear_kernel(x), slow_linear(x.numpy()), rtol=1e-9, atol=1e-9)
    assert torch.equal(squared_distances_within(x).diag(), torch.zeros(m, dtype=x.dtype))


@batches
@quick
def test_measures_agree_with_textbook_forms(m: int, d: int, e: int, seed: int, scale: float) -> None:
    x, z = drawn(m, d, e, seed, scale)
    k, ell = slow_gaussian(x.numpy(), 1.0), slow_linear(z.numpy())
    assert MEASURES["hsic"](x, z).item() == pytest.approx(slow_hsic(k, ell), rel=1e-8, abs=1e-10)
    assert MEASURES["normalized"](x, z).item() == pytest.approx(released_hsic(k, ell), rel=1e-6, abs=1e-8)
    assert MEASURES["coco"](x, z).item() == pytest.approx(slow_coco(k, ell), rel=1e-7, abs=1e-7)
    assert distance_correlation(x, z).item() == pytest.approx(slow_dcor(x.numpy(), z.numpy()), rel=1e-7, abs=1e-7)


@pytest.mark.slow
def test_distance_correlation_agrees_with_dcor() -> None:
    source = np.random.default_rng(0)
    drawings = [(*source.integers((2, 1, 1), (13, 10, 10)), seed, 10 ** source.uniform(-2, 1.3)) for seed in range(200)]
    pairs = [drawn(*map(int, sizes), scale=scale) for *sizes, scale in drawings]
    expected = distance_correlations([(x.numpy(), z.numpy()) for x, z in pairs])
    assert [distance_correlation(x, z).item() for x, z in pairs] == pytest.approx(expected, rel=1e-7, abs=1e-7)


@batches
@quick
def test_measures_lie_in_their_ranges(m: int, d: int, e: int, seed: int, scale: float) -> None:
    x, z = drawn(m, d, e, seed, scale)
    values = {name: measure(x, z).item() for name, measure in MEASURES.items()}
    assert min(values.values()) >= -1e-12
    assert values["normalized"] <= m - 1
    assert values["dcor"] <= 1 + 1e-12


@every
@batches
@quick
def test_single_precision_is_enough_for_images_and_labels(
    name: str, m: int, d: int, e: int, seed: int, scale: float
) -> None:
    x, z = drawn(m, d, e, seed, scale)
    labels = torch.nn.functional.one_hot(z.argmax(1), e)
    exact, result = MEASURES[name](x, labels.double()), MEASURES[name](x.float(), labels.float())
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(exact.item(), rel=1e-3, abs=1e-3)
    moved = MEASURES[name](x.float() + 3, labels.float())
    assert moved.item() == pytest.approx(exact.item(), rel=1e-2, abs=1e-3)


def test_centring_leaves_no_row_or_column_sum() -> None:
    k = torch.rand(7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = np.eye(7) - np.ones((7, 7)) / 7
    np.testing.assert_allclose(center(k), h @ k.numpy() @ h, atol=1e-14)


def test_linear_kernels_give_covariances() -> None:
    x, z = drawn(20, 4, 3, 1)
    both = np.cov(x.numpy().T, z.numpy().T)
    assert hsic(linear_kernel(x), linear_kernel(z)).item() == pytest.approx((both[:4, 4:] ** 2).sum())
    largest = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True)).max()
    assert coco(linear_kernel(x), linear_kernel(x)).item() == pytest.approx(largest)


def test_the_normalized_form_counts_directions_well_above_its_regularization() -> None:
    x, _ = drawn(20, 4, 3, 1)
    k = linear_kernel(x)
    eigenvalues = np.linalg.eigvalsh(center(k).numpy())
    assert normalized_hsic(k, k).item() == pytest.approx(((eigenvalues / (eigenvalues + 2e-4)) ** 2).sum())
    assert normalized_hsic(1e3 * k, 1e3 * k).item() == pytest.approx(4)
    assert normalized_hsic(1e-9 * k, 1e-9 * k).item() < 1e-6


@every
def test_a_constant_is_independent_and_gets_finite_gradients(name: str) -> None:
    x, _ = drawn(6, 3, 2, 4)
    constant = torch.full((6, 2), 0.1, dtype=torch.float64, requires_grad=True)
    for first, second in ((x, constant), (constant, constant)):
        value = MEASURES[name](first, second)
        assert value.item() == pytest.approx(0, abs=1e-12)
        (slope,) = torch.autograd.grad(value, constant)
        assert slope.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every
def test_coinciding_rows_get_finite_gradients(name: str, dtype: torch.dtype) -> None:
    x, z = (rows.to(dtype)[[0, 0, 1, 2, 2, 2]].requires_grad_() for rows in drawn(3, 3, 2, 4))
    value = MEASURES[name](x, z)
    assert value.item() > 0.1 or name != "dcor"
    for slope in torch.autograd.grad(value, (x, z)):
        assert slope.isfinite().all()
        assert slope.abs().max() > 1e-6


@every
def test_single_images_have_no_dependence(name: str) -> None:
    assert MEASURES[name](torch.rand(1, 3), torch.rand(1, 2)).item() == 0


@given(seed=st.integers(0, 10**6), factor=st.floats(0.1, 10), shift=st.floats(-5, 5))
@quick
def test_an_affine_map_keeps_all_distance_correlation(seed: int, factor: float, shift: float) -> None:
    x, _ = drawn(9, 3, 3, seed)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    assert distance_correlation(x, shift - factor * x @ turn).item() == pytest.approx(1, abs=1e-9)


@every
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    def well_conditioned(x: Tensor, z: Tensor) -> Tensor:
        return normalized_hsic(gaussian_kernel(x, 1.0), linear_kernel(z), epsilon=0.1)

    x, z = (rows.requires_grad_() for rows in drawn(6, 3, 2, 7))
    measure = well_conditioned if name == "normalized" else MEASURES[name]
    assert torch.autograd.gradcheck(measure, (x, z), atol=1e-7)


def test_what_is_not_finite_is_not_hidden() -> None:
    x = torch.tensor([[0.0], [1.0], [float("nan")]])
    for name in ("hsic", "normalized", "dcor"):
        assert MEASURES[name](x, torch.rand(3, 2)).isnan()
    with pytest.raises(torch.linalg.LinAlgError):
        MEASURES["coco"](x, torch.rand(3, 2))
