"""The sparse-coding problem against oracles that share no code with it: loops over patches, and dense algebra."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from sparseguard.sparse import (
    ConvDictionary,
    Status,
    energy,
    gradient,
    kkt_residual,
    largest_eigenvalue,
    random_atoms,
    solve,
    unit_norm,
)

quick = settings(max_examples=12, deadline=None, derandomize=True)


@st.composite
def dictionaries(draw):
    """Draw a float64 dictionary of any geometry that is promised to work."""
    h, w = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    padding = draw(st.sampled_from(["same", "valid"]))
    if padding == "same":
        kernel = draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 3, 5]))
    else:
        kernel = draw(st.integers(1, min(h, 5))), draw(st.integers(1, min(w, 5)))
    features, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return make(features, channels, kernel, draw(st.integers(1, 4)), padding, (h, w), draw(st.integers(0, 99)))


def make(features, channels, kernel, stride, padding, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    atoms = unit_norm(torch.randn(features, channels, *kernel, generator=generator, dtype=torch.float64))
    return ConvDictionary(atoms, stride, padding, size)


def dense(dictionary):
    """Return the synthesis as a matrix (pixels, coefficients), each column an atom put at its place pixel by pixel."""
    atoms, stride, (h, w) = dictionary.atoms.numpy(), dictionary.stride, dictionary.size
    f, c, kh, kw = atoms.shape
    if dictionary.padding == "same":
        top, left, p, q = -(kh // 2), -(kw // 2), -(-h // stride), -(-w // stride)
    else:
        top, left, p, q = 0, 0, (h - kh) // stride + 1, (w - kw) // stride + 1
    columns = np.zeros((f, p, q, c, h, w))
    for a, y, x, i, j in np.ndindex(f, p, q, kh, kw):
        row, column = top + y * stride + i, left + x * stride + j
        if 0 <= row < h and 0 <= column < w:
            columns[a, y, x, :, row, column] += atoms[a, :, i, j]
    return columns.reshape(f * p * q, c * h * w).T


def draws(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def image_shape(dictionary):
    return (int(dictionary.atoms.shape[1]), *dictionary.size)


SMALL = [
    make(3, 1, (3, 3), 1, "same", (6, 6)),
    make(4, 2, (3, 3), 2, "same", (7, 6)),
    make(2, 1, (4, 3), 1, "valid", (6, 7)),
    make(5, 1, (3, 3), 3, "valid", (8, 8)),
]


@quick
@given(dictionaries())
def test_synthesis_and_analysis_are_the_dense_operator_and_its_transpose(dictionary):
    matrix = dense(dictionary)
    code, images = draws(2, *dictionary.code_shape), draws(2, *image_shape(dictionary))
    np.testing.assert_allclose(
        dictionary.synthesis(code).flatten(1).numpy(), code.flatten(1).numpy() @ matrix.T, atol=1e-12
    )
    np.testing.assert_allclose(
        dictionary.analysis(images).flatten(1).numpy(), images.flatten(1).numpy() @ matrix, atol=1e-12
    )


@quick
@given(dictionaries())
def test_analysis_is_the_adjoint_of_synthesis(dictionary):
    code, images = draws(2, *dictionary.code_shape), draws(2, *image_shape(dictionary))
    left = (dictionary.analysis(images) * code).sum()
    right = (images * dictionary.synthesis(code)).sum()
    assert float((left - right).abs()) <= 1e-11 * (1 + float(left.abs()))


@quick
@given(dictionaries())
def test_same_padding_has_a_position_for_every_stride(dictionary):
    (h, w), stride = dictionary.size, dictionary.stride
    if dictionary.padding == "same":
        assert dictionary.code_shape[1:] == (-(-h // stride), -(-w // stride))
    assert dictionary.synthesis(torch.zeros(1, *dictionary.code_shape, dtype=torch.float64)).shape[2:] == (h, w)


@quick
@given(dictionaries(), st.floats(0, 2))
def test_energy_is_half_the_squared_residual_plus_lambda_times_the_sum(dictionary, lambd):
    code, images = draws(2, *dictionary.code_shape).relu(), draws(2, *image_shape(dictionary))
    residual = images.flatten(1).numpy() - code.flatten(1).numpy() @ dense(dictionary).T
    expected = [0.5 * float(r @ r) + lambd * float(c.sum()) for r, c in zip(residual, code.numpy(), strict=True)]
    np.testing.assert_allclose(energy(code, images, dictionary, lambd).numpy(), expected, rtol=1e-12)


@quick
@given(dictionaries())
def test_gradient_is_that_of_the_quadratic_term(dictionary):
    code, images = draws(2, *dictionary.code_shape).requires_grad_(), draws(2, *image_shape(dictionary))
    half = (images - dictionary.synthesis(code)).square().sum() / 2
    (expected,) = torch.autograd.grad(half, code)
    torch.testing.assert_close(gradient(code.detach(), images, dictionary), expected, rtol=1e-10, atol=1e-12)


def test_energy_and_gradient_agree_with_finite_differences():
    dictionary = SMALL[1]
    code, images = draws(1, *dictionary.code_shape), draws(1, *image_shape(dictionary))
    assert torch.autograd.gradcheck(lambda r: energy(r, images, dictionary, 0.0), code.clone().requires_grad_())
    slope, step = gradient(code, images, dictionary).flatten(), 1e-5
    for place in range(0, code.numel(), 7):
        nudge = torch.zeros(code.numel(), dtype=torch.float64)
        nudge[place] = step
        up, down = (energy(code + sign * nudge.view_as(code), images, dictionary, 0.0) for sign in (1, -1))
        assert float(up - down) / (2 * step) == pytest.approx(float(slope[place]), abs=1e-7)


@pytest.mark.parametrize("dictionary", SMALL)
def test_largest_eigenvalue_is_the_gram_matrix_s(dictionary):
    matrix = dense(dictionary)
    exact = float(np.linalg.eigvalsh(matrix.T @ matrix)[-1])
    start = draws(1, *dictionary.code_shape)
    few, _ = largest_eigenvalue(dictionary, start, 5)
    many, vector = largest_eigenvalue(dictionary, start, 3000)
    assert float(few) <= exact * (1 + 1e-12)
    assert float(many) == pytest.approx(exact, rel=1e-6)
    assert float(torch.linalg.vector_norm(vector)) == pytest.approx(1)
    flat = vector.flatten().numpy()
    assert float(flat @ matrix.T @ matrix @ flat) == pytest.approx(exact, rel=1e-6)


def test_kkt_residual_is_zero_exactly_at_a_known_solution():
    # one pixel, one atom of weight 1: the solution is max(x - lambda, 0)
    dictionary = ConvDictionary(torch.ones(1, 1, 1, 1, dtype=torch.float64), 1, "same", (1, 2))
    images = torch.tensor([[[[3.0, 0.25]]]], dtype=torch.float64)
    solution = torch.tensor([[[[2.5, 0.0]]]], dtype=torch.float64)
    assert kkt_residual(solution, images, dictionary, 0.5).tolist() == [0.0]
    assert kkt_residual(solution + 0.1, images, dictionary, 0.5).item() == pytest.approx(0.1)
    assert kkt_residual(-solution, images, dictionary, 0.5).item() > 0.1


def test_kkt_residual_is_of_each_image_alone():
    dictionary = SMALL[0]
    code, images = draws(3, *dictionary.code_shape).relu(), draws(3, *image_shape(dictionary))
    together = kkt_residual(code, images, dictionary, 0.3)
    alone = [kkt_residual(code[i : i + 1], images[i : i + 1], dictionary, 0.3).item() for i in range(3)]
    assert together.tolist() == pytest.approx(alone)


@pytest.mark.parametrize(("dictionary", "lambd"), [(SMALL[1], 0.05), (SMALL[2], 0.5)])
def test_solve_reaches_the_minimum_another_solver_finds(dictionary, lambd):
    matrix = dense(dictionary)
    lipschitz = torch.tensor(np.linalg.eigvalsh(matrix.T @ matrix)[-1])
    images = draws(2, *image_shape(dictionary), seed=3)
    found = solve(images, dictionary, lambd, lipschitz=lipschitz, steps=2000)
    assert (found.code >= 0).all()
    assert found.status.tolist() == [Status.FIXED_STEPS] * 2
    assert kkt_residual(found.code, images, dictionary, lambd).max() <= 1e-5
    torch.testing.assert_close(found.residual, images - dictionary.synthesis(found.code))
    torch.testing.assert_close(found.energy, energy(found.code, images, dictionary, lambd))
    for image, reached in zip(images.flatten(1).numpy(), found.energy.tolist(), strict=True):
        rival = minimize(
            lambda r, x=image: (
                0.5 * np.sum((x - matrix @ r) ** 2) + lambd * r.sum(),
                matrix.T @ (matrix @ r - x) + lambd,
            ),
            np.zeros(matrix.shape[1]),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, None)] * matrix.shape[1],
            options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9},
        )
        assert reached <= rival.fun + 1e-8
        assert reached == pytest.approx(rival.fun, rel=1e-6)


def test_a_step_too_long_is_reported_as_diverged():
    dictionary = SMALL[0]
    images = draws(1, *image_shape(dictionary))
    found = solve(images, dictionary, 0.01, lipschitz=torch.tensor(0.05, dtype=torch.float64), steps=50)
    assert found.status.tolist() == [Status.DIVERGED]
    with pytest.raises(ArithmeticError, match="1 of 1 images"):
        found.require_finite()


def test_random_atoms_have_unit_norm_and_follow_their_generator():
    first, second = (random_atoms(6, 2, (3, 5), torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    np.testing.assert_allclose(np.sqrt((first.numpy() ** 2).sum((1, 2, 3))), 1, rtol=1e-6)
    assert torch.equal(unit_norm(torch.zeros(1, 1, 3, 3)), torch.zeros(1, 1, 3, 3))
