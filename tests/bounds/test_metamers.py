from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparseguard.bounds import find_metamer, hidden_fraction, invert_code
from sparseguard.sparse import ConvDictionary, Problem, random_atoms, solve, standardize


def _image() -> Tensor:
    return torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.6 + 0.2


def _problem(image: Tensor, lambd: float, *, nonnegative: bool = True) -> Problem:
    atoms = random_atoms(4, 1, (3, 3), torch.Generator().manual_seed(0)).double()
    return Problem(standardize(image[None]), ConvDictionary(atoms, 1, "same", (8, 8)), lambd, nonnegative)


@pytest.mark.parametrize("nonnegative", [True, False])
def test_two_images_of_one_code_differ(nonnegative: bool) -> None:
    image = _image()
    result = find_metamer(image, _problem(image, 0.8, nonnegative=nonnegative), tries=4)
    assert result.kkt < 1e-6  # the code is a global minimum for both
    assert result.code_gap < 1e-4
    for part in (result.image, result.other):
        assert float(part.min()) >= 0
        assert float(part.max()) <= 1
    assert float(result.other.mean()) == pytest.approx(float(image.mean()))
    assert float(result.other.std()) == pytest.approx(float(image.std()))
    assert result.mse > 1e-4
    gap = result.image - result.other
    assert result.mse == pytest.approx(float(gap.square().mean()) / 4)
    # the best an attacker can do is to answer the middle; nothing is better on average
    for share in (0.0, 0.3, 0.5, 1.0):
        answer = share * result.image + (1 - share) * result.other
        errors = [float((answer - part).square().mean()) for part in (result.image, result.other)]
        assert sum(errors) / 2 >= result.mse * (1 - 1e-9)


def test_the_pair_differs_only_in_the_hidden_part() -> None:
    image = _image()
    problem = _problem(image, 0.8)
    result = find_metamer(image, problem, tries=2)
    code = solve(problem, steps=100_000, tolerance=1e-8).code
    projection = invert_code(problem.dictionary, code, 0.8, tol=1e-10, max_steps=5000).projection
    hidden = float(hidden_fraction(problem.images, projection)) * float(image.var(correction=0))
    assert 4 * result.mse <= 4 * hidden + 1e-9  # the hidden part, of the same length in both, moved by twice it at most


def test_a_code_that_determines_the_image_has_no_metamer() -> None:
    image = _image()
    identity = ConvDictionary(torch.ones(1, 1, 1, 1, dtype=torch.float64), 1, "same", (8, 8))
    lambd = float(standardize(image[None]).abs().min()) / 2  # every pixel is active
    result = find_metamer(image, Problem(standardize(image[None]), identity, lambd, nonnegative=False), tries=2)
    assert result.mse < 1e-8
    assert result.psnr > 80


def test_problems_it_cannot_solve_are_refused() -> None:
    image = _image()
    problem = _problem(image, 0.8)
    with pytest.raises(ValueError, match="l1 penalty"):
        find_metamer(image, Problem(problem.images, problem.dictionary, 0.8, penalty="l0"))
    with pytest.raises(ValueError, match="standardized image"):
        find_metamer(image * 0.5 + torch.linspace(0, 0.5, 8), problem)
