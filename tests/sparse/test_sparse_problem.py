"""The sparse-coding problem against oracles that share no code with it: loops over patches, and dense algebra."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from oracles.dense_operator import dense, lambdas, slow_kkt
from sparseguard.sparse import (
    ConvDictionary,
    Problem,
    Status,
    largest_eigenvalue,
    lipschitz_bound,
    random_atoms,
    solve,
    unit_norm,
)
from sparseguard.sparse._block_layout import Blocks, Layout, arrange
from support.sparse_problems import SMALL, dictionaries, draws, image_shape, make, make_dense, problems

quick = settings(max_examples=12, deadline=None, derandomize=True)
double = torch.float64


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
    assert dictionary.synthesis(torch.zeros(1, *dictionary.code_shape, dtype=double)).shape[2:] == (h, w)


def test_a_dense_dictionary_is_a_matrix_and_its_transpose():
    dictionary = make_dense(7, 4)
    atoms, code, images = dictionary.atoms.numpy(), draws(3, 7), draws(3, 4, seed=2)
    np.testing.assert_allclose(dictionary.synthesis(code).numpy(), code.numpy() @ atoms, atol=1e-12)
    np.testing.assert_allclose(dictionary.analysis(images).numpy(), images.numpy() @ atoms.T, atol=1e-12)
    np.testing.assert_allclose(
        dictionary.correlate(code, images).numpy(),
        sum(np.outer(c, x) for c, x in zip(code.numpy(), images.numpy(), strict=True)),
        atol=1e-12,
    )


@quick
@given(dictionaries())
def test_analysis_adds_a_bias_to_each_feature(dictionary):
    images, bias = draws(2, *image_shape(dictionary)), draws(len(dictionary.atoms), seed=3)
    plain, lifted = dictionary.analysis(images), dictionary.analysis(images, bias)
    for feature, value in enumerate(bias.tolist()):
        torch.testing.assert_close(lifted[:, feature], plain[:, feature] + value)


@quick
@given(dictionaries())
def test_correlate_is_the_slope_of_the_synthesis_in_each_weight(dictionary):
    code, images = draws(2, *dictionary.code_shape), draws(2, *image_shape(dictionary), seed=2)
    found = dictionary.correlate(code, images)
    unit = torch.eye(found.numel(), dtype=double).view(-1, *found.shape)
    for place in range(0, found.numel(), 1 + found.numel() // 8):
        picture = dense(dictionary.with_atoms(unit[place])) @ code.flatten(1).numpy().T
        assert float(found.flatten()[place]) == pytest.approx(float((picture.T * images.flatten(1).numpy()).sum()))


@quick
@given(dictionaries())
def test_competition_is_the_gram_matrix_without_its_diagonal_when_nothing_is_cropped(dictionary):
    # Eq. 2's competition knows no border: the dense oracle lets the same atoms stand on a canvas that holds them all
    features, p, q = dictionary.code_shape
    kernel, stride = dictionary.atoms.shape[2:], dictionary.stride
    canvas = ((p - 1) * stride + int(kernel[0]), (q - 1) * stride + int(kernel[1]))
    matrix = dense(ConvDictionary(dictionary.atoms, stride, "valid", canvas))
    code = draws(2, features, p, q)
    flat = code.flatten(1).numpy()
    found = dictionary.inhibition(code, dictionary.connectivity())
    np.testing.assert_allclose(found.flatten(1).numpy(), flat @ matrix.T @ matrix - flat, atol=1e-12)


def test_dense_competition_is_the_gram_matrix_without_its_diagonal():
    dictionary = make_dense(6, 4)
    code, atoms = draws(3, 6), dictionary.atoms.numpy()
    found = dictionary.inhibition(code, dictionary.connectivity())
    np.testing.assert_allclose(found.numpy(), code.numpy() @ (atoms @ atoms.T - np.eye(6)), atol=1e-12)


@quick
@given(dictionaries(), st.floats(0, 2))
def test_energy_is_half_the_squared_residual_plus_lambda_times_the_sum(dictionary, lambd):
    code, images = draws(2, *dictionary.code_shape).relu(), draws(2, *image_shape(dictionary))
    residual = images.flatten(1).numpy() - code.flatten(1).numpy() @ dense(dictionary).T
    expected = [0.5 * float(r @ r) + lambd * float(c.sum()) for r, c in zip(residual, code.numpy(), strict=True)]
    np.testing.assert_allclose(Problem(images, dictionary, lambd).energy(code).numpy(), expected, rtol=1e-12)


@quick
@given(problems())
def test_energy_weighs_each_feature_by_its_own_lambda_and_takes_magnitudes(problem):
    code = draws(2, *problem.dictionary.code_shape, seed=8)
    code = torch.where(code.abs() < 0.3, 0.0, code)
    residual = problem.images.flatten(1).numpy() - code.flatten(1).numpy() @ dense(problem.dictionary).T
    weights, flat = lambdas(problem), code.flatten(1).numpy()
    quadratic = 0.5 * (residual**2).sum(1)
    np.testing.assert_allclose(problem.energy(code).numpy(), quadratic + np.abs(flat) @ weights, rtol=1e-12)
    counting = Problem(problem.images, problem.dictionary, problem.lambd, problem.nonnegative, "l0")
    expected = quadratic + (flat != 0) @ (0.5 * weights**2)
    np.testing.assert_allclose(counting.energy(code).numpy(), expected, rtol=1e-12)


@quick
@given(dictionaries())
def test_gradient_is_that_of_the_quadratic_term(dictionary):
    code, images = draws(2, *dictionary.code_shape).requires_grad_(), draws(2, *image_shape(dictionary))
    half = (images - dictionary.synthesis(code)).square().sum() / 2
    (expected,) = torch.autograd.grad(half, code)
    found = Problem(images, dictionary, 0.1).gradient(code.detach())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_energy_and_gradient_agree_with_finite_differences():
    problem = Problem(draws(1, *image_shape(SMALL[1])), SMALL[1], 0.0)
    code = draws(1, *SMALL[1].code_shape)
    assert torch.autograd.gradcheck(problem.energy, code.clone().requires_grad_())
    slope, step = problem.gradient(code).flatten(), 1e-5
    for place in range(0, code.numel(), 7):
        nudge = torch.zeros(code.numel(), dtype=double)
        nudge[place] = step
        up, down = (problem.energy(code + sign * nudge.view_as(code)) for sign in (1, -1))
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


@pytest.mark.parametrize("dictionary", [*SMALL, make_dense(9, 6)])
def test_the_bound_of_the_step_size_is_above_the_gram_matrix_s_largest_eigenvalue(dictionary):
    matrix = dense(dictionary)
    exact = float(np.linalg.eigvalsh(matrix.T @ matrix)[-1])
    assert exact < float(lipschitz_bound(dictionary))


@quick
@given(dictionaries())
def test_the_bound_of_the_step_size_holds_for_any_geometry(dictionary):
    matrix = dense(dictionary)
    assert float(np.linalg.norm(matrix, 2)) ** 2 < float(lipschitz_bound(dictionary))


@pytest.mark.parametrize(
    ("features", "channels", "kernel", "stride"),
    [(16, 1, 5, 1), (8, 3, 7, 2), pytest.param(70, 70, 3, 1, marks=pytest.mark.slow)],
)
def test_the_bound_of_the_step_size_is_close_for_images_much_larger_than_atoms(features, channels, kernel, stride):
    dictionary = make(features, channels, (kernel, kernel), stride, "same", (64, 64))
    start = draws(1, *dictionary.code_shape)
    below, _ = largest_eigenvalue(dictionary, start, 150)
    assert float(below) < float(lipschitz_bound(dictionary)) < 1.08 * float(below)


def test_the_bound_follows_an_update_that_lifts_another_spatial_frequency():
    atoms = torch.zeros(2, 1, 1, 9, dtype=double)
    atoms[0, 0, 0], atoms[1, 0, 0] = 1 / 3, torch.tensor([1.0, -1.0] * 4 + [1.0]) / 3
    bounds = []
    for low, high in ((1.0, 0.9), (0.9, 1.0)):
        scaled = atoms * torch.tensor([low, high], dtype=double).view(2, 1, 1, 1)
        bounds.append(float(lipschitz_bound(ConvDictionary(scaled, 1, "same", (9, 30)))))
    assert bounds[0] == pytest.approx(bounds[1], rel=0.02)


@pytest.mark.parametrize("side", [3, 5, 7])
def test_the_bound_of_the_step_size_holds_for_a_single_grating_of_any_frequency(side):
    # the Rayleigh quotient of any code is below the largest eigenvalue; this one is a wide grating, faded out
    size = 128
    places, fade = torch.arange(size, dtype=double), torch.sin(torch.pi * (torch.arange(size) + 0.5) / size)
    for frequency in torch.linspace(0.1, 3.1, 61).tolist():
        wave = torch.cos(frequency * torch.arange(side, dtype=double))
        atoms = unit_norm((wave[:, None] * wave).view(1, 1, side, side))
        peak = int(torch.fft.rfft(wave, n=4096).abs().argmax()) * 2 * torch.pi / 4096
        grating = torch.cos(peak * places) * fade
        dictionary = ConvDictionary(atoms, 1, "same", (size, size))
        code = (grating[:, None] * grating).view(1, 1, size, size)
        quotient = dictionary.synthesis(code).square().sum() / code.square().sum()
        assert float(quotient) < float(lipschitz_bound(dictionary))


def test_kkt_residual_is_zero_exactly_at_a_known_solution():
    # one pixel, one atom of weight 1: the solution is max(x - lambda, 0)
    dictionary = ConvDictionary(torch.ones(1, 1, 1, 1, dtype=double), 1, "same", (1, 2))
    problem = Problem(torch.tensor([[[[3.0, 0.25]]]], dtype=double), dictionary, 0.5)
    solution = torch.tensor([[[[2.5, 0.0]]]], dtype=double)
    assert problem.kkt_residual(solution).tolist() == [0.0]
    assert problem.kkt_residual(solution + 0.1).item() == pytest.approx(0.1)
    assert problem.kkt_residual(-solution).item() > 0.1


def test_kkt_residual_is_of_each_image_alone():
    problem = Problem(draws(3, *image_shape(SMALL[0])), SMALL[0], 0.3)
    code = draws(3, *SMALL[0].code_shape).relu()
    together = problem.kkt_residual(code)
    alone = [problem.select(torch.tensor([i])).kkt_residual(code[i : i + 1]).item() for i in range(3)]
    assert together.tolist() == pytest.approx(alone)


@pytest.mark.parametrize("penalty", ["l1", "l0"])
@quick
@given(problems())
def test_kkt_residual_is_the_longest_move_of_a_proximal_gradient_step(penalty, problem):
    problem = Problem(problem.images, problem.dictionary, problem.lambd, problem.nonnegative, penalty)
    code = draws(2, *problem.dictionary.code_shape, seed=5)
    for candidate in (code, code.relu(), torch.zeros_like(code), code / 10):
        assert problem.kkt_residual(candidate).tolist() == pytest.approx(slow_kkt(problem, candidate), abs=1e-12)


@quick
@given(problems())
def test_lambda_max_is_where_the_code_of_zeros_begins_to_be_a_solution(problem):
    edge = problem.lambda_max()
    drive = problem.images.flatten(1).numpy() @ dense(problem.dictionary)
    sizes = drive.max(1) if problem.nonnegative else np.abs(drive).max(1)
    np.testing.assert_allclose(edge.numpy(), np.maximum(sizes, 0), atol=1e-12)
    for number in range(2):
        one, lambd = problem.select(torch.tensor([number])), float(edge[number])
        at, below = (Problem(one.images, one.dictionary, s * lambd, one.nonnegative) for s in (1 + 1e-9, 0.9))
        assert at.kkt_residual(at.zeros()).item() == 0
        assert below.kkt_residual(below.zeros()).item() == pytest.approx(0.1 * lambd)


@pytest.mark.parametrize(("dictionary", "lambd"), [(SMALL[1], 0.05), (SMALL[2], 0.5)])
def test_solve_reaches_the_minimum_another_solver_finds(dictionary, lambd):
    matrix = dense(dictionary)
    lipschitz = torch.tensor(np.linalg.eigvalsh(matrix.T @ matrix)[-1])
    problem = Problem(draws(2, *image_shape(dictionary), seed=3), dictionary, lambd)
    found = solve(problem, lipschitz=lipschitz, steps=2000)
    assert (found.code >= 0).all()
    assert found.status.tolist() == [Status.FIXED_STEPS] * 2
    assert problem.kkt_residual(found.code).max() <= 1e-5
    torch.testing.assert_close(found.residual, problem.images - dictionary.synthesis(found.code))
    torch.testing.assert_close(found.energy, problem.energy(found.code))
    for image, reached in zip(problem.images.flatten(1).numpy(), found.energy.tolist(), strict=True):
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
    problem = Problem(draws(1, *image_shape(SMALL[0])), SMALL[0], 0.01)
    found = solve(problem, lipschitz=torch.tensor(0.05, dtype=double), steps=50)
    assert found.status.tolist() == [Status.DIVERGED]
    with pytest.raises(ArithmeticError, match="1 of 1 images"):
        found.require_finite()


def test_random_atoms_have_unit_norm_and_follow_their_generator():
    first, second = (random_atoms(6, 2, (3, 5), torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    np.testing.assert_allclose(np.sqrt((first.numpy() ** 2).sum((1, 2, 3))), 1, rtol=1e-6)
    assert torch.equal(unit_norm(torch.zeros(1, 1, 3, 3)), torch.zeros(1, 1, 3, 3))


@st.composite
def blocked(draw):
    """Draw a float32 problem that is solved in blocks; pixels that no atom reaches included."""
    block, stride, most = draw(st.sampled_from([(4, 1, 1), (2, 1, 4), (2, 2, 1)]))
    positions = [block * draw(st.integers(1, 3)) for _ in range(2)]
    padding = draw(st.sampled_from(["same", "valid"]))
    if padding == "same":
        kernel = [draw(st.sampled_from([1, 3, 5])) for _ in range(2)]
        size = [p * stride - draw(st.integers(0, stride - 1)) for p in positions]
    else:
        kernel = [draw(st.integers(1, 5)) for _ in range(2)]
        size = [(p - 1) * stride + k + draw(st.integers(0, stride - 1)) for p, k in zip(positions, kernel, strict=True)]
    features = draw(st.integers(1, 3))
    plain = make(features, draw(st.integers(1, most)), tuple(kernel), stride, padding, tuple(size))
    lambd = draw(st.sampled_from([0.2, torch.linspace(0.1, 0.4, features)]))
    dictionary = plain.with_atoms(plain.atoms.float())
    return Problem(draws(2, *image_shape(dictionary)).float(), dictionary, lambd, draw(st.booleans()))


@settings(quick, max_examples=40)
@given(blocked())
def test_a_problem_in_blocks_is_the_same_problem(problem):
    layout = arrange(problem)
    assert isinstance(layout, Blocks)
    dictionary, inner = problem.dictionary, layout.problem
    code, images = draws(2, *dictionary.code_shape).float(), problem.images
    moved = layout.code_in(code)
    assert tuple(moved.shape[1:]) == inner.dictionary.code_shape
    assert torch.equal(layout.code_out(moved), code)
    reached = torch.from_numpy(np.abs(dense(dictionary)).max(1) > 0).view(image_shape(dictionary))
    seen = layout.image_out(inner.images)  # pixels beyond every atom may be cut
    assert torch.equal(torch.where(reached, seen, 0), torch.where(reached, images, 0))
    close = {"rtol": 1e-4, "atol": 2e-5}
    torch.testing.assert_close(layout.image_out(inner.dictionary.synthesis(moved)), dictionary.synthesis(code), **close)
    torch.testing.assert_close(layout.code_out(inner.drive()), problem.drive(), **close)
    torch.testing.assert_close(layout.code_out(inner.gradient(moved)), problem.gradient(code), **close)
    torch.testing.assert_close(layout.code_out(inner.shrink(moved)), problem.shrink(code), **close)
    torch.testing.assert_close(inner.kkt_residual(moved), problem.kkt_residual(code), **close)
    cut = (images - seen).square().flatten(1).sum(1) / 2
    torch.testing.assert_close(inner.energy(moved) + cut, problem.energy(code), **close)


@settings(quick, max_examples=8)
@given(blocked())
def test_single_precision_codes_in_blocks_are_the_double_precision_codes(problem):
    lambd = problem.lambd.double() if isinstance(problem.lambd, torch.Tensor) else problem.lambd
    dictionary = problem.dictionary.with_atoms(problem.dictionary.atoms.double())
    exact = Problem(problem.images.double(), dictionary, lambd, problem.nonnegative)
    for settled in ({"steps": 5}, {"steps": 3000, "tolerance": 1e-4}):
        found, expected = solve(problem, **settled), solve(exact, **settled)
        assert found.code.dtype == torch.float32
        torch.testing.assert_close(found.energy.double(), expected.energy, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.residual.double(), expected.residual, rtol=1e-3, atol=1e-3)
        assert torch.equal(found.status, expected.status)


def test_double_precision_is_left_as_it_is():
    problem = Problem(draws(1, 1, 8, 8), make(2, 1, (3, 3), 1, "same", (8, 8)), 0.1)
    layout = arrange(problem)
    assert type(layout) is Layout
    assert layout.problem is problem
