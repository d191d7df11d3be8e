"""What solving promises: optimality, steps as written, images apart from each other, honest status and traces."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from oracles.dense_operator import dense, lambdas, slow_kkt
from sparseguard.sparse import (
    ConvDictionary,
    DivergedError,
    Fista,
    Lca,
    Problem,
    Status,
    lipschitz_bound,
    solve,
)
from support.sparse_problems import SMALL, draws, image_shape, make, make_dense, problems

double = torch.float64
few = settings(max_examples=15, deadline=None, derandomize=True)
DEFAULT, CLASSIC, LCA = Fista(), Fista(relaxation=1, inertia=None, restart=False), Lca(tau=5.0)
fistas = pytest.mark.parametrize("method", [DEFAULT, CLASSIC], ids=["default", "classic"])
methods = pytest.mark.parametrize("method", [DEFAULT, CLASSIC, LCA], ids=["default", "classic", "lca"])
TOLERANCE = 1e-5


def batch(dictionary, n=4, **settings):
    """Return a problem of images that differ in how hard they are: each is larger than the one before."""
    images = draws(n, *image_shape(dictionary), seed=6)
    sizes = torch.logspace(-0.3, 0.6, n, dtype=double).view(-1, *(1,) * (images.ndim - 1))
    return Problem(images * sizes, dictionary, settings.pop("lambd", 0.3), **settings)


def bound(dictionary):
    return float(lipschitz_bound(dictionary))


def threshold(values, weights, problem):
    """Return the soft (l1) or hard (l0) threshold, as a numpy array."""
    if problem.nonnegative:
        values = np.maximum(values, 0)
    if problem.penalty == "l0":
        return np.where(np.abs(values) > weights, values, 0.0)
    return np.sign(values) * np.maximum(np.abs(values) - weights, 0)


VALID = make(4, 1, (3, 3), 1, "valid", (7, 6))
CASES = {
    "same": batch(SMALL[0]),
    "same, stride 2, channels, signed": batch(SMALL[1], nonnegative=False),
    "valid": batch(VALID),
    "valid, stride 3, one lambda a feature": batch(SMALL[3], lambd=torch.linspace(0.1, 0.9, 5, dtype=double)),
    "dense, signed": batch(make_dense(12, 8), nonnegative=False),
    "dense, one lambda a feature": batch(make_dense(12, 8), lambd=torch.linspace(0.1, 0.6, 12, dtype=double)),
}
cases = pytest.mark.parametrize("problem", CASES.values(), ids=CASES.keys())


# --- optimality


@fistas
@few
@given(problems())
def test_solved_means_optimal_to_the_tolerance_and_nothing_else_does(method, problem):
    found = solve(problem, method, steps=10_000, tolerance=TOLERANCE)
    for kkt, slow, status, steps in zip(
        found.kkt.tolist(),
        slow_kkt(problem, found.code),
        found.status.tolist(),
        found.steps.tolist(),
        strict=True,
    ):
        assert kkt == pytest.approx(slow, abs=1e-12)
        if kkt <= TOLERANCE:
            assert status == Status.SOLVED
        else:
            assert (status, steps) == (Status.MAX_STEPS, 10_000)


@fistas
@cases
def test_ordinary_problems_are_solved(method, problem):
    found = solve(problem, method, steps=10_000, tolerance=TOLERANCE)
    assert found.status.tolist() == [Status.SOLVED] * 4
    assert max(slow_kkt(problem, found.code)) <= TOLERANCE


@cases
def test_too_few_steps_are_never_called_solved(problem):
    found = solve(problem, steps=3, tolerance=1e-8)
    assert found.status.tolist() == [Status.MAX_STEPS] * 4
    assert found.steps.tolist() == [3] * 4
    assert min(slow_kkt(problem, found.code)) > 1e-8


@cases
def test_no_nearby_code_has_less_energy(problem):
    found = solve(problem, steps=10_000, tolerance=1e-8)
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-1, 1):
        for _ in range(20):
            other = found.code + size * torch.randn(found.code.shape, generator=generator, dtype=double)
            other = torch.where(torch.rand(other.shape, generator=generator) < 0.5, other, found.code)
            other = other.relu() if problem.nonnegative else other
            assert (problem.energy(other) >= found.energy - 1e-12).all()


def test_codes_are_in_closed_form_where_atoms_do_not_overlap():
    # atoms of one pixel and one channel each: the code is the threshold of the pixels
    atoms = torch.eye(3, dtype=double).view(3, 3, 1, 1)
    dictionary = ConvDictionary(atoms, 1, "same", (4, 5))
    images = draws(2, 3, 4, 5)
    for nonnegative in (True, False):
        for penalty, methods in (("l1", (DEFAULT, CLASSIC, LCA)), ("l0", (LCA,))):
            problem = Problem(images, dictionary, 0.4, nonnegative, penalty)
            expected = threshold(images.numpy(), 0.4, problem)
            assert 0 < (expected != 0).mean() < 1
            for method in methods:
                found = solve(problem, method, steps=2000, tolerance=1e-10)
                np.testing.assert_allclose(found.code.numpy(), expected, atol=1e-9)
                assert found.status.tolist() == [Status.SOLVED] * 2


def test_one_lambda_a_feature_equals_one_for_all_where_they_agree():
    problem = CASES["same"]
    each = replace(problem, lambd=torch.full((3,), 0.3, dtype=double))
    for method in (DEFAULT, CLASSIC, LCA):
        torch.testing.assert_close(solve(problem, method).code, solve(each, method).code, rtol=0, atol=1e-12)


def test_a_solution_is_consistent_with_itself():
    problem = CASES["same, stride 2, channels, signed"]
    found = solve(problem)
    matrix, code = dense(problem.dictionary), found.code.flatten(1).numpy()
    reconstruction = code @ matrix.T
    images = problem.images.flatten(1).numpy()
    slope = (reconstruction - images) @ matrix
    np.testing.assert_allclose(found.reconstruction.flatten(1).numpy(), reconstruction, atol=1e-12)
    np.testing.assert_allclose(found.residual.flatten(1).numpy(), images - reconstruction, atol=1e-12)
    np.testing.assert_allclose(found.drive.flatten(1).numpy(), images @ matrix, atol=1e-12)
    np.testing.assert_allclose(found.potentials.flatten(1).numpy(), code - slope, atol=1e-12)
    energy = 0.5 * ((images - reconstruction) ** 2).sum(1) + 0.3 * np.abs(code).sum(1)
    np.testing.assert_allclose(found.energy.numpy(), energy, rtol=1e-12)
    assert torch.equal(found.connectivity, problem.dictionary.connectivity())
    assert found.steps.tolist() == [30] * 4
    assert found.trace is None


def test_no_images_give_no_codes():
    for dictionary, shape in ((SMALL[0], (0, 1, 6, 6)), (make_dense(5, 3), (0, 3))):
        for tolerance in (None, 1e-3):
            found = solve(Problem(torch.zeros(shape, dtype=double), dictionary, 0.1), tolerance=tolerance)
            assert tuple(found.code.shape) == (0, *dictionary.code_shape)
            assert found.require_finite().energy.tolist() == []


# --- the steps are those of the formulas


@pytest.mark.parametrize("method", [DEFAULT, CLASSIC, Fista(relaxation=0.7, inertia=None)], ids=str)
@cases
def test_fista_takes_the_steps_of_its_formula(method, problem):
    matrix, weights = dense(problem.dictionary), lambdas(problem)
    largest = bound(problem.dictionary)
    gamma = method.relaxation / largest
    for number, image in enumerate(problem.images.flatten(1).numpy()):
        code = point = np.zeros(matrix.shape[1])
        clock, reached = 1.0, []
        for step in range(12):
            after = threshold(point - gamma * matrix.T @ (matrix @ point - image), gamma * weights, problem)
            if method.inertia is None:
                later = (1 + math.sqrt(1 + 4 * clock**2)) / 2
                beta, clock = ((clock - 1) / later, later) if step else (0.0, clock)
            else:
                beta = method.inertia
            if method.restart and (point - after) @ (after - code) > 0:
                beta, clock = 0.0, 1.0
            code, point = after, after + beta * (after - code) * (step > 0)
            reached.append(code)
        for steps in (1, 2, 12):
            found = solve(problem, method, steps=steps, lipschitz=torch.tensor(largest, dtype=double))
            np.testing.assert_allclose(found.code[number].flatten().numpy(), reached[steps - 1], atol=1e-10)


@pytest.mark.parametrize("penalty", ["l1", "l0"])
@cases
def test_lca_takes_the_euler_steps_of_its_equation(problem, penalty):
    problem = replace(problem, penalty=penalty)
    dictionary, whole = problem.dictionary, problem.dictionary
    if isinstance(dictionary, ConvDictionary):  # the competition knows no border: atoms on a canvas that holds them all
        (kh, kw), (_, p, q), stride = dictionary.atoms.shape[2:], dictionary.code_shape, dictionary.stride
        whole = ConvDictionary(dictionary.atoms, stride, "valid", ((p - 1) * stride + kh, (q - 1) * stride + kw))
    gram = dense(whole).T @ dense(whole)
    drive, weights = problem.images.flatten(1).numpy() @ dense(dictionary), lambdas(problem)
    potentials = np.zeros_like(drive)
    for steps in range(1, 9):
        code = threshold(potentials, weights, problem)
        found = solve(problem, Lca(tau=4.0), steps=steps)
        np.testing.assert_allclose(found.code.flatten(1).numpy(), code, atol=1e-10)
        np.testing.assert_allclose(found.potentials.flatten(1).numpy(), potentials, atol=1e-10)
        potentials = potentials + (drive - potentials - (code @ gram - code)) / 4
    assert (code != 0).any()


def test_lca_follows_its_closed_form_where_atoms_do_not_overlap():
    dictionary = ConvDictionary(torch.eye(2, dtype=double).view(2, 2, 1, 1), 1, "same", (3, 3))
    problem = Problem(draws(2, 2, 3, 3), dictionary, 0.3)
    for steps in (1, 2, 30):
        approached = problem.images * (1 - (1 - 1 / 20) ** (steps - 1))
        found = solve(problem, Lca(tau=20), steps=steps)
        torch.testing.assert_close(found.potentials, approached)
        torch.testing.assert_close(found.code, (approached - 0.3).relu())


# --- LCA and FISTA


def test_lca_and_fista_agree_where_every_atom_lies_inside_the_image():
    for problem in (batch(VALID, nonnegative=False, lambd=0.5), batch(VALID, lambd=0.5)):
        settled = solve(problem, Lca(tau=10), steps=1500)
        solved = solve(problem, steps=10_000, tolerance=1e-9)
        torch.testing.assert_close(settled.energy, solved.energy, rtol=1e-3, atol=0)
        assert (settled.energy >= solved.energy - 1e-9).all()


def test_lca_stays_above_the_minimum_where_the_reconstruction_is_cropped():
    # the Gram form ignores that atoms are cropped at the border; that it can come near but not there is documented
    problem = batch(make(4, 1, (3, 3), 1, "same", (7, 6)), lambd=0.7)
    settled = solve(problem, Lca(tau=5), steps=1500)
    longer = solve(problem, Lca(tau=5), steps=1600)
    torch.testing.assert_close(settled.code, longer.code, rtol=0, atol=1e-6)  # at rest
    solved = solve(problem, steps=10_000, tolerance=1e-9)
    gap = settled.energy / solved.energy - 1
    assert (gap > 5e-6).all()
    assert 0.01 < gap.max() < 0.1
    assert (settled.kkt > 5e-3).all()


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("dictionary", [SMALL[2], SMALL[3], make_dense(9, 8)], ids=["valid", "stride", "dense"])
def test_hard_threshold_codes_are_least_squares_on_their_support(dictionary, nonnegative):
    problem = batch(dictionary, lambd=0.5, nonnegative=nonnegative, penalty="l0")
    found = solve(problem, LCA, steps=5000, tolerance=1e-9)
    assert found.status.tolist() == [Status.SOLVED] * 4
    matrix = dense(dictionary)
    for image, code in zip(problem.images.flatten(1).numpy(), found.code.flatten(1).numpy(), strict=True):
        support = code != 0
        assert 0 < support.sum() < len(code)
        best, *_ = np.linalg.lstsq(matrix[:, support], image, rcond=None)
        np.testing.assert_allclose(code[support], best, atol=1e-6)
        size = code[support] if nonnegative else np.abs(code[support])
        assert (size > 0.5).all()
        pull = (matrix.T @ (image - matrix @ code))[~support]
        assert (pull if nonnegative else np.abs(pull)).max() <= 0.5 + 1e-6


# --- images apart from each other


@methods
@cases
def test_code_and_steps_of_an_image_do_not_depend_on_the_images_beside_it(method, problem):
    goal = {"steps": 120, "tolerance": 2e-2, "check_every": 3}
    if method is LCA and isinstance(problem.dictionary, ConvDictionary) and problem.dictionary.padding == "same":
        goal["tolerance"] = 0.5  # it rests off the optimum there
    found = solve(problem, method, **goal)
    assert len(found.steps.unique()) > 1
    order = torch.tensor([2, 0, 3, 1])
    shuffled = solve(problem.select(order), method, **goal)
    assert torch.equal(shuffled.steps, found.steps[order])
    assert torch.equal(shuffled.status, found.status[order])
    torch.testing.assert_close(shuffled.code, found.code[order], rtol=0, atol=1e-10)
    torch.testing.assert_close(shuffled.potentials, found.potentials[order], rtol=0, atol=1e-10)
    for number in (0, 2):
        alone = solve(problem.select(torch.tensor([number])), method, **goal)
        assert alone.steps.item() == found.steps[number].item()
        torch.testing.assert_close(alone.code[0], found.code[number], rtol=0, atol=1e-10)


@methods
@cases
def test_with_a_fixed_count_a_code_does_not_depend_on_the_images_beside_it_either(method, problem):
    found = solve(problem, method, steps=25)
    shuffled = solve(problem.select(torch.tensor([3, 1, 0, 2])), method, steps=25)
    torch.testing.assert_close(shuffled.code, found.code[[3, 1, 0, 2]], rtol=0, atol=1e-10)
    for number in (0, 2):
        alone = solve(problem.select(torch.tensor([number])), method, steps=25)
        torch.testing.assert_close(alone.code[0], found.code[number], rtol=0, atol=1e-10)


def test_an_image_that_is_not_finite_leaves_the_others_alone():
    problem = CASES["same"]
    for goal in ({"steps": 25}, {"steps": 500, "tolerance": 1e-4}):
        sound = solve(problem, **goal)
        for bad in (math.nan, math.inf):
            images = problem.images.clone()
            images[1, 0, 2, 3] = bad
            found = solve(replace(problem, images=images), **goal)
            assert found.status[1] == Status.DIVERGED
            rest = torch.tensor([0, 2, 3])
            assert torch.equal(found.status[rest], sound.status[rest])
            torch.testing.assert_close(found.code[rest], sound.code[rest], rtol=0, atol=1e-10)


# --- stopping, starting, tracing


@methods
def test_an_image_stops_at_the_first_look_that_finds_it_solved(method):
    problem = CASES["valid"]
    found = solve(problem, method, steps=3000, tolerance=1e-2, check_every=7)
    assert (found.status == Status.SOLVED).all()
    assert len(found.steps.unique()) > 1
    for number, steps in enumerate(found.steps.tolist()):
        assert steps % 7 == 0
        one = problem.select(torch.tensor([number]))
        stopped = solve(one, method, steps=steps)
        torch.testing.assert_close(stopped.code[0], found.code[number], rtol=0, atol=1e-10)
        assert stopped.kkt.item() <= 1e-2
        if steps > 7:
            assert solve(one, method, steps=steps - 7).kkt.item() > 1e-2


@methods
@pytest.mark.parametrize("name", ["valid", "dense, signed"])
def test_a_start_from_the_solution_stops_at_the_first_look(method, name):
    problem = CASES[name]
    solved = solve(problem, steps=20_000, tolerance=1e-9)
    for every in (1, 10):
        again = solve(problem, method, steps=3000, tolerance=1e-6, check_every=every, start=solved.code)
        assert again.steps.tolist() == [every] * 4
        assert again.status.tolist() == [Status.SOLVED] * 4
        torch.testing.assert_close(again.code, solved.code, rtol=0, atol=1e-5)


@methods
def test_a_start_from_a_neighbouring_solution_ends_at_the_same_minimum(method):
    near, problem = batch(VALID, lambd=0.61), batch(VALID, lambd=0.6)
    goal = {"steps": 3000, "tolerance": 1e-4}
    cold = solve(problem, method, **goal)
    warm = solve(problem, method, **goal, start=solve(near, method, **goal).code)
    torch.testing.assert_close(warm.energy, cold.energy, rtol=0, atol=1e-5)
    assert int(warm.steps.sum()) < int(cold.steps.sum())


def test_the_hard_threshold_restarts_from_its_own_codes():
    problem = batch(SMALL[3], lambd=0.7, penalty="l0")
    solved = solve(problem, LCA, steps=5000, tolerance=1e-9)
    again = solve(problem, LCA, steps=5000, tolerance=1e-6, start=solved.code)
    assert (solved.code > 0).flatten(1).any(1).all()
    assert again.steps.tolist() == [10] * 4
    torch.testing.assert_close(again.code, solved.code, rtol=0, atol=1e-6)


@methods
@cases
def test_a_trace_holds_what_each_number_of_steps_reaches(method, problem):
    found = solve(problem, method, steps=14, trace=True)
    for column in (found.trace.energy, found.trace.active, found.trace.residual):
        assert tuple(column.shape) == (14, 4)
    for steps in (1, 2, 7, 14):
        other = solve(problem, method, steps=steps)
        row = steps - 1
        torch.testing.assert_close(found.trace.energy[row], problem.energy(other.code))
        torch.testing.assert_close(found.trace.active[row], (other.code != 0).double().flatten(1).mean(1))
        torch.testing.assert_close(
            found.trace.residual[row], (problem.images - other.reconstruction).square().flatten(1).sum(1).sqrt()
        )
    torch.testing.assert_close(found.code, other.code)  # nor does tracing change the codes


def test_a_finished_image_keeps_its_last_traced_values():
    problem = CASES["valid"]
    found = solve(problem, steps=2000, tolerance=1e-4, trace=True)
    assert len(found.steps.unique()) > 1
    assert len(found.trace.energy) == int(found.steps.max())
    untraced = solve(problem, steps=2000, tolerance=1e-4)
    assert torch.equal(found.steps, untraced.steps)
    torch.testing.assert_close(found.code, untraced.code)
    for number, steps in enumerate(found.steps.tolist()):
        for column in (found.trace.energy, found.trace.active, found.trace.residual):
            assert (column[steps - 1 :, number] == column[steps - 1, number]).all()
        assert found.trace.energy[steps - 1, number].item() == pytest.approx(found.energy[number].item())


def test_a_small_step_never_raises_the_energy():
    for problem in CASES.values():
        found = solve(problem, Fista(relaxation=1, inertia=0, restart=False), steps=40, trace=True)
        assert (found.trace.energy.diff(dim=0) <= 1e-12).all()
        assert (found.trace.energy[-1] < found.trace.energy[0]).all()


# --- what diverges, and what is refused


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@methods
def test_what_is_not_finite_is_diverged_never_a_value(method, bad):
    problem = CASES["valid"]
    spoilt = problem.images.clone()
    spoilt[2, 0, 3, 3] = bad
    atoms = problem.dictionary.atoms.clone()
    atoms[1, 0, 1, 1] = bad
    for goal in ({"steps": 20}, {"steps": 20, "tolerance": 1e-3}):
        found = solve(replace(problem, images=spoilt), method, **goal)
        assert (found.status == Status.DIVERGED).tolist() == [False, False, True, False]
        with pytest.raises(DivergedError, match="1 of 4 images"):
            found.require_finite()
        found = solve(
            replace(problem, dictionary=problem.dictionary.with_atoms(atoms)),
            method,
            lipschitz=torch.tensor(8.0, dtype=double),
            **goal,
        )
        if method is LCA:
            found = solve(replace(problem, dictionary=problem.dictionary.with_atoms(atoms)), method, **goal)
        assert found.status.tolist() == [Status.DIVERGED] * 4


@fistas
def test_steps_too_long_for_the_dictionary_are_diverged(method):
    for problem in CASES.values():
        length = torch.tensor(bound(problem.dictionary) / 20, dtype=double)
        for goal in ({"steps": 60}, {"steps": 60, "tolerance": 1e-6}):
            found = solve(problem, method, lipschitz=length, **goal)
            assert found.status.tolist() == [Status.DIVERGED] * 4


def test_lca_with_a_time_constant_too_short_is_diverged():
    problem = batch(make(8, 1, (5, 5), 1, "valid", (12, 12)), lambd=0.05, nonnegative=False)
    assert bound(problem.dictionary) > 4
    found = solve(problem, Lca(tau=1), steps=60)
    assert found.status.tolist() == [Status.DIVERGED] * 4


def test_a_sound_solution_passes_as_it_is():
    found = solve(CASES["same"])
    assert found.require_finite() is found


def test_settings_out_of_range_are_refused():
    problem = CASES["same"]
    for wrong in ({"steps": 0}, {"check_every": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            solve(problem, **wrong)
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="tolerance"):
            solve(problem, tolerance=wrong)
    with pytest.raises(ValueError, match=r"\(4, 3, 6, 6\), got \(1, 3, 6, 6\)"):
        solve(problem, start=torch.zeros(1, 3, 6, 6, dtype=double))
    for wrong in (0.0, 1.34, math.nan):
        with pytest.raises(ValueError, match="relaxation"):
            Fista(relaxation=wrong)
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="inertia"):
            Fista(inertia=wrong)
    for wrong in (0.9, math.nan):
        with pytest.raises(ValueError, match="tau"):
            Lca(tau=wrong)
    with pytest.raises(ValueError, match="l0 problem needs Lca"):
        solve(replace(problem, penalty="l0"))
