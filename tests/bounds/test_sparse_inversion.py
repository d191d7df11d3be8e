from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparseguard.bounds import hidden_fraction, invert_code
from sparseguard.bounds.sparse_inversion import choose_steps
from sparseguard.sparse import ConvDictionary, DenseDictionary, Dictionary, Problem, random_atoms, solve, standardize

DOUBLE = torch.float64


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _problem(lambd: float, *, nonnegative: bool = True, features: int = 4, channels: int = 1, n: int = 3) -> Problem:
    atoms = random_atoms(features, channels, (3, 3), _generator()).double()
    images = standardize(torch.rand(n, channels, 8, 8, generator=_generator(1), dtype=DOUBLE))
    return Problem(images, ConvDictionary(atoms, 1, "same", (8, 8)), lambd, nonnegative)


def _exact(problem: Problem) -> Tensor:
    result = solve(problem, steps=50_000, tolerance=1e-10)
    assert bool((result.kkt <= 1e-10).all())
    return result.code


def _matrix(dictionary: Dictionary) -> Tensor:
    """The dictionary as a dense matrix (pixels, coefficients)."""
    count = torch.Size(dictionary.code_shape).numel()
    return dictionary.synthesis(torch.eye(count, dtype=DOUBLE).view(count, *dictionary.code_shape)).flatten(1).T


@pytest.mark.parametrize("lambd", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("channels", [1, 2])
def test_inversion_of_exact_codes_is_the_dense_projection_of_the_input(
    lambd: float, nonnegative: bool, channels: int
) -> None:
    problem = _problem(lambd, nonnegative=nonnegative, channels=channels)
    code = _exact(problem)
    result = invert_code(problem.dictionary, code, lambd, tol=1e-10, max_steps=20_000)
    w = _matrix(problem.dictionary)
    for z, r, projection, residual in zip(problem.images, code, result.projection, result.residual, strict=True):
        active = w[:, r.flatten() != 0]
        expected = active @ (torch.linalg.pinv(active) @ z.flatten())
        torch.testing.assert_close(projection.flatten(), expected, atol=1e-6, rtol=0)
        assert float(residual) < 1e-6
    assert nonnegative or bool((code < 0).any())


def test_inversion_of_any_code_is_the_shortest_least_squares_solution() -> None:
    problem = _problem(0.3)
    code = torch.relu(torch.randn(3, 4, 8, 8, generator=_generator(2), dtype=DOUBLE) - 1)
    result = invert_code(problem.dictionary, code, 0.3, tol=1e-12, max_steps=50_000)
    w = _matrix(problem.dictionary)
    for r, projection, residual in zip(code, result.projection, result.residual, strict=True):
        on = r.flatten() != 0
        wanted = torch.full((int(on.sum()),), 0.3, dtype=DOUBLE)
        y = torch.linalg.pinv(w[:, on].T) @ wanted
        torch.testing.assert_close(projection.flatten(), w @ r.flatten() + y, atol=1e-6, rtol=0)
        left = (w[:, on].T @ y - wanted).norm() / wanted.norm()
        assert float(residual) == pytest.approx(float(left), abs=1e-6)


def test_residual_shows_codes_that_are_no_solution() -> None:
    dictionary = DenseDictionary(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    two_signs = torch.tensor([[0.5, -0.5], [0.5, 0.5]])
    residual = invert_code(dictionary, two_signs, 0.1).residual  # one atom twice cannot be wanted with both signs
    assert residual.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_complete_active_span_gives_the_input_exactly() -> None:
    atoms = torch.linalg.qr(torch.randn(6, 6, generator=_generator(), dtype=DOUBLE))[0]
    z = (3 + torch.rand(2, 6, generator=_generator(1), dtype=DOUBLE)) @ atoms  # drives of 3 to 4, all above lambda
    code = _exact(Problem(z, DenseDictionary(atoms), 1.0))
    assert bool((code > 0).all())
    result = invert_code(DenseDictionary(atoms), code, 1.0, tol=1e-12)
    torch.testing.assert_close(result.projection, z, atol=1e-8, rtol=0)
    assert bool((hidden_fraction(z, result.projection) < 1e-16).all())
    assert bool((hidden_fraction(z, code @ atoms) > 0.01).all())


@pytest.mark.slow
def test_lambda_to_zero_gives_the_image_and_more_lambda_hides_more() -> None:
    hidden = []
    for lambd in (5e-3, 0.2, 1.0, 2.0):
        problem = _problem(lambd, features=8, n=2)
        code = solve(problem, steps=10_000, tolerance=1e-5).code
        result = invert_code(problem.dictionary, code, lambd, tol=1e-7, max_steps=2000)
        ours = hidden_fraction(problem.images, result.projection)
        assert bool((ours <= hidden_fraction(problem.images, problem.dictionary.synthesis(code)) + 1e-9).all())
        hidden.append(float(ours.mean()))
    assert hidden[0] < 1e-5
    assert hidden == sorted(hidden)
    assert hidden[-1] > 0.3


def test_lambda_a_feature_and_codes_of_zeros() -> None:
    problem = _problem(0.3)
    lambdas = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DOUBLE)
    problem = Problem(problem.images, problem.dictionary, lambdas)
    code = _exact(problem)
    result = invert_code(problem.dictionary, code, lambdas, tol=1e-10, max_steps=20_000)
    w = _matrix(problem.dictionary)[:, code[0].flatten() != 0]
    expected = w @ (torch.linalg.pinv(w) @ problem.images[0].flatten())
    torch.testing.assert_close(result.projection[0].flatten(), expected, atol=1e-6, rtol=0)
    nothing = invert_code(problem.dictionary, torch.zeros_like(code), lambdas)
    assert not nothing.projection.any()
    assert not nothing.residual.any()
    assert nothing.steps == 0


def test_images_do_not_depend_on_their_batch() -> None:
    problem = _problem(0.2, n=4)
    code = solve(problem, steps=30).code
    code[1:] *= torch.tensor([0.1, 1.0, 10.0], dtype=DOUBLE).view(3, 1, 1, 1)
    together = invert_code(problem.dictionary, code, 0.2).projection
    for i in range(4):
        alone = invert_code(problem.dictionary, code[i : i + 1], 0.2).projection[0]
        torch.testing.assert_close(together[i], alone, atol=1e-9, rtol=0)


def test_the_chosen_steps_are_the_minimum_over_all_steps() -> None:
    problem = _problem(0.3, features=8)
    code = solve(problem, steps=5).code
    errors = []
    for steps in range(60):
        result = invert_code(problem.dictionary, code, 0.3, tol=0.0, max_steps=steps)
        assert result.steps == steps
        errors.append(float((problem.images - result.projection).square().sum()))
    best = choose_steps(problem.dictionary, code, 0.3, problem.images, limit=59, patience=60)
    assert best == errors.index(min(errors))
    assert errors[best] < errors[0]
    assert choose_steps(problem.dictionary, code, 0.3, problem.images, limit=0) == 0


def test_codes_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="expected codes"):
        invert_code(DenseDictionary(torch.eye(3)), torch.zeros(1, 4), 0.1)


def test_hidden_fraction_of_nothing_is_nothing() -> None:
    z = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert hidden_fraction(z, torch.tensor([[0.0, 0.0], [3.0, 0.0]])).tolist() == pytest.approx([0, 16 / 25])
