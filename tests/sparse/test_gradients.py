"""Gradients through the solver: against autograd, finite differences, dense algebra and each other, in float64."""

import functools
import gc
import itertools
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from oracles.dense_operator import dense, lambdas, slow_kkt
from sparseguard.sparse import (
    ConvDictionary,
    Detached,
    Fista,
    Implicit,
    Lca,
    NotConvergedError,
    NotConvergedWarning,
    OneStep,
    Problem,
    Status,
    Unrolled,
    solve,
    unit_norm,
)
from support.sparse_problems import draws, image_shape, make, make_dense

double = torch.float64
DEFAULT, CLASSIC, LCA = Fista(), Fista(relaxation=1, inertia=None, restart=False), Lca(tau=4.0)
METHODS = {"default": DEFAULT, "classic": CLASSIC, "lca": LCA}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
LENGTH = torch.tensor(5.0, dtype=double)
"""The largest eigenvalue as the solvers are told: any bound will do, and it must stay put when atoms are nudged."""

DICTIONARIES = {
    "same": make(3, 1, (3, 3), 1, "same", (4, 5)),
    "same, stride 2": make(3, 2, (3, 3), 2, "same", (5, 4)),
    "valid": make(2, 2, (2, 3), 1, "valid", (4, 5)),
    "valid, stride 2, a pixel no atom reaches": make(3, 1, (2, 2), 2, "valid", (5, 5)),
    "dense": make_dense(6, 4),
}
dictionaries = pytest.mark.parametrize("dictionary", DICTIONARIES.values(), ids=DICTIONARIES.keys())
signs = pytest.mark.parametrize("nonnegative", [True, False], ids=["nonnegative", "signed"])


def instance(dictionary, nonnegative=True, n=2, seed=3):
    """Return a problem of ``n`` images of different sizes, with one lambda a feature."""
    images = draws(n, *image_shape(dictionary), seed=seed)
    sizes = torch.linspace(1, 2.5, n, dtype=double).view(-1, *(1,) * (images.ndim - 1))
    lambd = torch.linspace(0.1, 0.25, len(dictionary.atoms), dtype=double)
    return Problem(images * sizes, dictionary, lambd, nonnegative)


def with_inputs(problem, images, atoms, lambd):
    return replace(problem, images=images, dictionary=problem.dictionary.with_atoms(atoms), lambd=lambd)


def inputs(problem):
    """Return the images, atoms and lambdas as leaves that want a gradient."""
    return [t.clone().requires_grad_() for t in (problem.images, problem.dictionary.atoms, problem.lambd)]


def weights_like(code):
    return draws(*code.shape, seed=9)


def run(problem, leaves, **settings):
    return solve(with_inputs(problem, *leaves), **{"lipschitz": LENGTH, **settings})


def gradients(problem, **settings):
    """Return the codes and, of a random linear function of them, the gradient in images, atoms and lambda."""
    leaves = inputs(problem)
    code = run(problem, leaves, **settings).code
    return code.detach(), torch.autograd.grad((code * weights_like(code)).sum(), leaves)


def assert_same(found, expected, rtol=1e-9, atol=1e-11):
    for name, one, other in zip(("images", "atoms", "lambda"), found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol, msg=lambda text, name=name: f"in {name}: {text}")


# --- unrolled


@methods
@signs
@dictionaries
def test_unrolled_gradients_are_finite_differences(method, nonnegative, dictionary):
    problem = instance(dictionary, nonnegative)
    leaves = inputs(problem)

    def codes(*leaves):
        return run(problem, leaves, method=method, steps=4).code

    for wanted in range(3):  # one at a time takes other ways through the code
        alone = [leaf if place == wanted else leaf.detach() for place, leaf in enumerate(leaves)]
        assert torch.autograd.gradcheck(codes, alone, fast_mode=True)


@pytest.mark.parametrize("method", [DEFAULT, CLASSIC], ids=["default", "classic"])
@signs
def test_every_entry_of_the_unrolled_jacobian_is_a_finite_difference(method, nonnegative):
    problem = instance(make(2, 1, (2, 2), 1, "valid", (3, 3)), nonnegative, n=1)
    assert torch.autograd.gradcheck(lambda *leaves: run(problem, leaves, method=method, steps=5).code, inputs(problem))


def assert_formula_is_autograd(problem, **settings):
    code, expected = gradients(problem, gradient=Unrolled(twice=True), **settings)
    assert all(float(each.abs().max()) > 0 for each in expected)
    for segment in (None, 3):
        same, found = gradients(problem, gradient=Unrolled(segment=segment), **settings)
        torch.testing.assert_close(same, code, rtol=0, atol=1e-12)
        assert_same(found, expected)


@pytest.mark.parametrize("method", [DEFAULT, CLASSIC], ids=["default", "classic"])
@signs
@dictionaries
def test_unrolled_by_formula_is_unrolled_by_autograd(dictionary, nonnegative, method):
    assert_formula_is_autograd(instance(dictionary, nonnegative), method=method, steps=7)


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 1},
        {"steps": 2},
        {"steps": 19},
        {"steps": 40, "tolerance": 0.1, "check_every": 1},
        {"steps": 7, "trace": True},
    ],
    ids=["one step", "two", "many", "tolerance", "trace"],
)
@pytest.mark.parametrize("method", [DEFAULT, CLASSIC], ids=["default", "classic"])
@signs
def test_unrolled_by_formula_is_unrolled_by_autograd_however_many_steps(nonnegative, method, settings):
    assert_formula_is_autograd(instance(DICTIONARIES["valid"], nonnegative), method=method, **settings)


@methods
@signs
@pytest.mark.parametrize("name", ["same, stride 2", "dense"])
def test_unrolled_gradients_hold_from_a_warm_start(name, nonnegative, method):
    dictionary = DICTIONARIES[name]
    problem = instance(dictionary, nonnegative)
    start = warm(problem)
    settings = {"method": method, "steps": 5, "start": start}
    _, expected = gradients(problem, gradient=Unrolled(twice=True), **settings)
    for segment in (None, 3):
        assert_same(gradients(problem, gradient=Unrolled(segment=segment), **settings)[1], expected)
    leaves = inputs(problem)
    assert torch.autograd.gradcheck(lambda *leaves: run(problem, leaves, **settings).code, leaves, fast_mode=True)
    cold = gradients(problem, **{**settings, "start": None})[1]
    assert not torch.allclose(cold[1], expected[1], rtol=1e-3)  # the start does matter


def warm(problem):
    """Return a code to start from, another for each image."""
    start = draws(len(problem.images), *problem.dictionary.code_shape, seed=5)
    return start.relu() if problem.nonnegative else start


@methods
def test_a_start_is_a_constant_to_the_gradient(method):
    problem = instance(DICTIONARIES["valid"])
    start = warm(problem)
    leaf = start.clone().requires_grad_()
    _, expected = gradients(problem, method=method, steps=5, start=start)
    leaves = inputs(problem)
    code = run(problem, leaves, method=method, steps=5, start=leaf).code
    *found, of_start = torch.autograd.grad((code * weights_like(code)).sum(), [*leaves, leaf], allow_unused=True)
    assert of_start is None
    assert_same(found, expected)


@pytest.mark.parametrize("penalty", ["l1", "l0"])
@pytest.mark.parametrize("name", ["same", "dense"])
def test_lca_recomputed_in_segments_has_the_gradient_of_lca_kept(name, penalty):
    problem = replace(instance(DICTIONARIES[name]), penalty=penalty)
    leaves = inputs(problem)[:2]
    found = []
    for segment in (None, 1, 3, 4, 100):
        code = run(problem, [*leaves, problem.lambd], method=LCA, steps=10, gradient=Unrolled(segment=segment)).code
        found.append((code, *torch.autograd.grad((code * weights_like(code)).sum(), leaves)))
    assert float(found[0][2].abs().max()) > 0
    for recomputed in found[1:]:
        assert_same(recomputed, found[0])


@pytest.mark.parametrize("started", [False, True], ids=["cold", "warm"])
@methods
def test_with_a_tolerance_every_image_has_the_gradient_of_its_own_steps(method, started):
    problem = instance(DICTIONARIES["valid"], n=3)
    start = warm(problem) if started else None
    settings = {"steps": 100, "tolerance": 5e-2, "check_every": 2, "start": start}
    leaves = inputs(problem)
    found = run(problem, leaves, method=method, **settings)
    assert len(found.steps.unique()) > 1
    if not started:
        assert torch.autograd.gradcheck(
            lambda *leaves: run(problem, leaves, method=method, **settings).code, inputs(problem), fast_mode=True
        )
    weights = weights_like(found.code)
    total = torch.autograd.grad((found.code * weights).sum(), leaves)
    sums = [torch.zeros_like(each) for each in total]
    for number, steps in enumerate(found.steps.tolist()):
        one = problem.select(torch.tensor([number]))
        alone = inputs(one)
        own = start[number : number + 1] if started else None
        code = run(one, alone, method=method, steps=steps, start=own).code
        torch.testing.assert_close(code[0], found.code[number], rtol=0, atol=1e-12)
        of_images, *rest = torch.autograd.grad((code * weights[number]).sum(), alone)
        torch.testing.assert_close(of_images[0], total[0][number])
        sums[0][number] = of_images[0]
        for place, each in enumerate(rest, 1):
            sums[place] += each
    assert_same(sums, total)


def test_one_lambda_for_all_has_the_gradients_of_the_same_lambda_for_each():
    problem = instance(DICTIONARIES["same"])
    one, each = replace(problem, lambd=0.2), replace(problem, lambd=torch.full((3,), 0.2, dtype=double))
    for method, gradient in itertools.product(METHODS.values(), (Unrolled(), Unrolled(twice=True), OneStep())):
        found = []
        for case in (one, each):
            leaves = [t.clone().requires_grad_() for t in (case.images, case.dictionary.atoms)]
            code = run(case, [*leaves, case.lambd], method=method, gradient=gradient).code
            found.append((code, *torch.autograd.grad((code * weights_like(code)).sum(), leaves)))
        assert_same(*found)


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding", "size"),
    [(1, (3, 3), 1, "same", (8, 8)), (1, (3, 3), 2, "valid", (10, 10)), (3, (5, 3), 1, "same", (6, 8))],
    ids=["same", "valid, stride 2, pixels no atom reaches", "three channels"],
)
@signs
def test_single_precision_gradients_are_the_double_precision_ones(channels, kernel, stride, padding, size, nonnegative):
    # this is where a processor's arrangement in blocks comes in
    dictionary = make(3, channels, kernel, stride, padding, size)
    problem = instance(dictionary, nonnegative)
    unreached = torch.from_numpy(np.abs(dense(dictionary)).max(1) == 0).view(image_shape(dictionary))
    assert bool(unreached.any()) == (padding == "valid")
    lipschitz = torch.tensor(12.0)
    for wanted in ((0, 2), (0, 1, 2)):  # gradients in the atoms take another way
        results = []
        for dtype in (torch.float32, double):
            leaves = [leaf.detach().to(dtype) for leaf in inputs(problem)]
            chosen = [leaves[place].requires_grad_() for place in wanted]
            code = run(problem, leaves, method=CLASSIC, steps=15, lipschitz=lipschitz.to(dtype)).code
            weights = weights_like(code).to(dtype)
            found = torch.autograd.grad((code * weights).sum(), chosen)
            assert (found[0][:, unreached] == 0).all()
            results.append([code.detach().double(), *(each.double() for each in found)])
        for single, exact in zip(*results, strict=True):
            torch.testing.assert_close(single, exact, rtol=1e-3, atol=1e-4)


# --- the implicit gradient

SOLVED = {"steps": 20_000, "tolerance": 1e-11, "lipschitz": None}
EXACT = Implicit(kkt=1e-9, residual=1e-11)


@functools.cache
def settled(dictionary, nonnegative, n=2):
    """Return a problem, with its solution, whose coefficients are all clearly active or clearly not."""
    for seed in range(50):
        problem = instance(dictionary, nonnegative, n, seed)
        found = solve(problem, steps=20_000, tolerance=1e-11)
        if not (found.status == Status.SOLVED).all():
            continue
        code, slope = found.code.flatten(1).numpy(), problem.gradient(found.code).flatten(1).numpy()
        active = code != 0
        slack = lambdas(problem) - (-slope if nonnegative else np.abs(slope))
        clear = np.abs(code[active]).min(initial=1) > 1e-3 and slack[~active].min(initial=1) > 1e-3
        if active.any(1).all() and clear:
            return problem, found
    raise AssertionError("no seed gives strict complementarity.")


@pytest.mark.parametrize(
    ("name", "nonnegative"), [("same, stride 2", True), ("valid", True), ("valid", False), ("dense", False)], ids=str
)
def test_the_implicit_gradient_is_that_of_the_solution(name, nonnegative):
    problem, base = settled(DICTIONARIES[name], nonnegative, n=1)
    leaves = inputs(problem)
    code = run(problem, leaves, gradient=EXACT, **SOLVED).code
    weights = weights_like(code)
    slopes = torch.autograd.grad((code * weights).sum(), leaves)

    def value(moved):
        found = solve(with_inputs(problem, *moved), start=base.code, steps=20_000, tolerance=1e-12)
        assert max(slow_kkt(found.problem, found.code)) <= 1e-12
        return float((found.code * weights).sum())

    plain, step = [leaf.detach() for leaf in leaves], 1e-5
    for place in range(3):
        direction, ends = draws(*plain[place].shape, seed=21), []
        for sign in (step, -step):
            moved = [*plain]
            moved[place] = plain[place] + sign * direction
            ends.append(value(moved))
        difference = (ends[0] - ends[1]) / (2 * step)
        assert abs(difference) > 1e-2
        assert float((slopes[place] * direction).sum()) == pytest.approx(difference, rel=1e-4)


@signs
@dictionaries
def test_the_implicit_gradient_is_dense_algebra_on_the_support(dictionary, nonnegative):
    problem, _ = settled(dictionary, nonnegative, n=1)
    leaves = inputs(problem)
    code = run(problem, leaves, gradient=EXACT, **SOLVED).code
    of_images, _, of_lambda = torch.autograd.grad((code * weights_like(code)).sum(), leaves)
    matrix, flat = dense(dictionary), code.detach().flatten().numpy()
    support = flat != 0
    part = matrix[:, support]
    inner = np.linalg.solve(part.T @ part, weights_like(code).flatten().numpy()[support])
    np.testing.assert_allclose(of_images.flatten().numpy(), part @ inner, atol=1e-8)
    pull = np.zeros_like(flat)
    pull[support] = -inner * np.sign(flat[support])
    np.testing.assert_allclose(of_lambda.numpy(), pull.reshape(len(dictionary.atoms), -1).sum(1), atol=1e-8)


@methods
def test_the_implicit_gradient_is_where_long_unrolling_goes(method):
    problem, _ = settled(DICTIONARIES["valid"], True, n=1)
    goal = {"method": method, "steps": 400, "lipschitz": None}
    _, implicit = gradients(problem, gradient=EXACT, **goal)
    _, unrolled = gradients(problem, gradient=Unrolled(segment=10), **goal)
    if method is LCA:  # its equation takes every atom's norm to be 1: it agrees along the sphere, not off it
        implicit, unrolled = (along_the_sphere(problem, slopes) for slopes in (implicit, unrolled))
    assert_same(implicit, unrolled, rtol=1e-5, atol=1e-6)
    _, short = gradients(problem, gradient=Unrolled(), method=method, steps=5)
    assert not torch.allclose(short[0], implicit[0], rtol=0.05)


def along_the_sphere(problem, slopes):
    atoms, (of_images, of_atoms, of_lambda) = problem.dictionary.atoms.flatten(1), slopes
    radial = (of_atoms.flatten(1) * atoms).sum(1, keepdim=True) * atoms
    return of_images, of_atoms - radial.view_as(of_atoms), of_lambda


def test_hard_threshold_codes_at_rest_have_the_implicit_gradient_of_least_squares():
    problem = replace(instance(make(2, 1, (3, 3), 1, "valid", (6, 5)), n=1), penalty="l0", lambd=0.6)
    images = problem.images.clone().requires_grad_()
    found = solve(replace(problem, images=images), Lca(tau=5), steps=5000, tolerance=1e-11, gradient=EXACT)
    (slope,) = torch.autograd.grad((found.code * weights_like(found.code)).sum(), images)
    support = found.code.detach().flatten().numpy() != 0
    assert 0 < support.sum() < support.size
    expected = (
        np.linalg.pinv(dense(problem.dictionary)[:, support]).T @ weights_like(found.code).flatten()[support].numpy()
    )
    np.testing.assert_allclose(slope.flatten().numpy(), expected, atol=1e-8)


def test_the_implicit_gradient_is_refused_off_the_solution():
    problem = instance(DICTIONARIES["same"])
    with pytest.raises(NotConvergedError, match="2 of 2 codes are not solved"):
        gradients(problem, gradient=Implicit(), steps=10)
    gradients(problem, gradient=Implicit(), steps=5000, tolerance=1e-5, lipschitz=None)
    # the locally competitive algorithm rests off the optimum where the reconstruction is cropped
    with pytest.raises(NotConvergedError, match="run more steps, or set a tolerance"):
        gradients(problem, gradient=Implicit(), method=Lca(tau=10), steps=3000)


@pytest.mark.parametrize("otherwise", [Unrolled(), OneStep(), Detached()], ids=str)
def test_only_images_that_are_not_solved_get_another_gradient_and_one_warning_tells(otherwise):
    problem, base = settled(DICTIONARIES["valid"], True, n=3)
    start = base.code.clone()
    start[1] = draws(*start.shape[1:], seed=5).relu()  # for the image in the middle three steps are too few
    settings = {"steps": 3, "lipschitz": None}
    rule = Implicit(kkt=1e-6, residual=1e-11, otherwise=otherwise)
    with pytest.warns(NotConvergedWarning, match="1 of 3 codes") as caught:
        code, found = gradients(problem, gradient=rule, start=start, **settings)
    assert len(caught) == 1
    plain = solve(problem, start=start, steps=3)
    torch.testing.assert_close(code, plain.code, rtol=0, atol=1e-12)
    weights = weights_like(code)
    for number, alone in ((0, EXACT), (1, otherwise), (2, EXACT)):
        one = problem.select(torch.tensor([number]))
        leaves = inputs(one)
        own = replace(alone, kkt=1e-6) if alone is EXACT else alone
        single = run(one, leaves, gradient=own, start=start[number : number + 1], **settings).code
        if isinstance(own, Detached):
            assert not single.requires_grad
            assert (found[0][number] == 0).all()
        else:
            (of_images,) = torch.autograd.grad((single * weights[number]).sum(), leaves[0])
            torch.testing.assert_close(found[0][number], of_images[0], rtol=1e-8, atol=1e-9)
            assert float(of_images.abs().max()) > 0


def test_solved_images_give_no_warning():
    problem, _ = settled(DICTIONARIES["valid"], True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, found = gradients(problem, gradient=replace(EXACT, otherwise=Unrolled()), **SOLVED)
    assert_same(found, gradients(problem, gradient=EXACT, **SOLVED)[1])


def twins():
    """Return a problem whose active atoms are dependent: one atom stands there twice."""
    atom = unit_norm(torch.ones(1, 3, dtype=double))
    dictionary = make_dense(2, 3).with_atoms(torch.cat([atom, atom]))
    images = torch.tensor([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]], dtype=double)
    return Problem(images, dictionary, torch.tensor([0.1, 0.1], dtype=double))


def test_dependent_active_atoms_are_refused_or_get_the_one_step_gradient():
    problem = twins()
    settings = {"steps": 1000, "tolerance": 1e-9, "lipschitz": torch.tensor(2.0, dtype=double)}
    with pytest.raises(NotConvergedError, match="nearly dependent"):
        gradients(problem, gradient=Implicit(), **settings)
    with pytest.warns(NotConvergedWarning, match="one-step gradient") as caught:
        code, found = gradients(problem, gradient=Implicit(otherwise=Detached()), **settings)
    assert len(caught) == 1
    assert (code > 0).all()
    assert_same(found, gradients(problem, gradient=OneStep(), **settings)[1])


def test_an_empty_code_has_a_gradient_of_zero():
    problem = instance(DICTIONARIES["same"])
    problem = replace(problem, lambd=problem.lambd + 100)
    for method, rule in itertools.product(
        METHODS.values(), (Unrolled(), Unrolled(twice=True), Unrolled(segment=2), Implicit(), OneStep())
    ):
        code, found = gradients(problem, method=method, gradient=rule)
        assert (code == 0).all()
        assert all((each == 0).all() for each in found)


# --- one step, and none


@signs
@dictionaries
def test_the_one_step_gradient_is_that_of_a_step_from_the_code_as_a_constant(dictionary, nonnegative):
    problem = instance(dictionary, nonnegative)
    settings = {"steps": 12, "gradient": OneStep()}
    code, found = gradients(problem, **settings)
    weights, values = weights_like(code).flatten(1).numpy(), code.flatten(1).numpy()
    plain = [leaf.detach() for leaf in inputs(problem)]

    def value(images, atoms, lambd):
        moved = with_inputs(problem, images, atoms, lambd)
        matrix, thresholds = dense(moved.dictionary), lambdas(moved) / float(LENGTH)
        ahead = values - (values @ matrix.T - images.flatten(1).numpy()) @ matrix / float(LENGTH)
        ahead = np.maximum(ahead, 0) if nonnegative else ahead
        return float((np.sign(ahead) * np.maximum(np.abs(ahead) - thresholds, 0) * weights).sum())

    for place, seed in itertools.product(range(3), (21, 22)):
        direction, ends = draws(*plain[place].shape, seed=seed), []
        for sign in (1e-6, -1e-6):
            moved = [*plain]
            moved[place] = plain[place] + sign * direction
            ends.append(value(*moved))
        slope = float((found[place] * direction).sum())
        assert abs(slope) > 1e-3
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-7)


def test_at_a_solution_the_one_step_gradient_is_the_active_atoms_over_the_eigenvalue():
    problem, base = settled(DICTIONARIES["same"], True)
    code, (of_images, _, of_lambda) = gradients(problem, gradient=OneStep(), **{**SOLVED, "lipschitz": LENGTH})
    held = torch.where(base.code > 0, weights_like(code), 0).flatten(1).numpy() / float(LENGTH)
    np.testing.assert_allclose(of_images.flatten(1).numpy(), held @ dense(problem.dictionary).T, atol=1e-9)
    np.testing.assert_allclose(of_lambda.numpy(), -held.reshape(2, 3, -1).sum((0, 2)), atol=1e-9)


def test_detached_codes_have_no_graph():
    problem = instance(DICTIONARIES["same"])
    for settings in ({}, {"steps": 400, "tolerance": 1e-3}, {"trace": True}):
        assert not run(problem, inputs(problem), gradient=Detached(), **settings).code.requires_grad


@methods
def test_without_a_wish_for_gradients_there_is_no_graph(method):
    problem = instance(DICTIONARIES["same"])
    assert not run(problem, [leaf.detach() for leaf in inputs(problem)], method=method).code.requires_grad
    with torch.no_grad():
        assert not run(problem, inputs(problem), method=method).code.requires_grad
    found = run(problem, inputs(problem), method=method, trace=True)
    assert found.code.requires_grad
    known = (found.residual, found.energy, found.kkt, found.drive, found.reconstruction, found.potentials)
    assert not any(each.requires_grad for each in (*known, *vars(found.trace).values()))
    assert not found.problem.requires_grad


@pytest.mark.parametrize("settings", [{"steps": 9}, {"steps": 40, "tolerance": 5e-2, "trace": True}], ids=str)
@methods
@pytest.mark.parametrize("name", ["valid", "dense"])
def test_no_rule_changes_the_codes_or_what_is_known_of_them(name, method, settings):
    problem = instance(DICTIONARIES[name])
    plain = run(problem, (problem.images, problem.dictionary.atoms, problem.lambd), method=method, **settings)
    rules = (Unrolled(), Unrolled(segment=2), Unrolled(twice=True), OneStep(), Detached(), Implicit(kkt=1e6))
    for rule in rules:
        found = run(problem, inputs(problem), method=method, gradient=rule, **settings)
        torch.testing.assert_close(found.code.detach(), plain.code, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.potentials, plain.potentials, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.energy, plain.energy, rtol=0, atol=1e-12)
        assert torch.equal(found.steps, plain.steps)
        assert torch.equal(found.status, plain.status)
        if "trace" in settings:
            torch.testing.assert_close(found.trace.energy, plain.trace.energy, rtol=0, atol=1e-12)


# --- twice


@pytest.mark.parametrize("segment", [None, 2])
@methods
def test_unrolled_twice_can_be_differentiated_twice(method, segment):
    problem = instance(make(2, 1, (2, 2), 1, "valid", (3, 3)), n=1)
    rule = Unrolled(twice=True, segment=segment)
    leaves = inputs(problem)

    def codes(*leaves):
        return run(problem, leaves, method=method, gradient=rule, steps=4).code

    assert torch.autograd.gradgradcheck(codes, leaves, fast_mode=True)
    code = codes(*leaves)
    slopes = torch.autograd.grad((code * weights_like(code)).sum(), leaves, create_graph=True)
    bends = torch.autograd.grad(slopes[0].square().sum(), leaves[1])
    assert float(bends[0].abs().max()) > 0


@pytest.mark.parametrize("readout", ["linear", "quadratic"])
@pytest.mark.parametrize("way", ["backward", "grad"])
@pytest.mark.parametrize("rule", [Unrolled(), Unrolled(segment=3), EXACT], ids=["unrolled", "segments", "implicit"])
def test_other_rules_refuse_to_be_differentiated_twice(rule, way, readout):
    # a penalty on the gradient must not silently count as a constant
    problem, _ = settled(DICTIONARIES["valid"], True, n=1)
    leaves = inputs(problem)
    code = run(problem, leaves, gradient=rule, **SOLVED).code
    loss = (code * weights_like(code)).sum() if readout == "linear" else code.square().sum()

    def penalized():
        slopes = torch.autograd.grad(loss, leaves, create_graph=True)
        penalty = slopes[0].square().sum()
        return (loss + penalty).backward() if way == "backward" else torch.autograd.grad(loss + penalty, leaves[1])

    with pytest.raises(RuntimeError, match=r"twice|once_differentiable"):
        penalized()


# --- what a graph holds on to


@pytest.mark.parametrize("rule", [Unrolled(), Unrolled(segment=3), Unrolled(twice=True), OneStep()], ids=str)
@methods
def test_a_graph_goes_when_its_codes_go(method, rule):
    # without waiting for the garbage collector, which does not know how much memory is at stake
    problem = instance(DICTIONARIES["same"])
    leaves = inputs(problem)
    for steps in (3, 4, 5):
        gc.disable()
        try:
            code = run(problem, leaves, method=method, gradient=rule, steps=steps).code
            code.sum().backward()
            left = weakref.ref(code)
            del code
            assert left() is None
        finally:
            gc.enable()


@methods
@pytest.mark.parametrize("changed", ["images", "atoms", "lambda"])
def test_inputs_changed_before_the_way_back_are_noticed_or_do_not_matter(method, changed):
    problem = instance(DICTIONARIES["same"])
    _, expected = gradients(problem, method=method, steps=8)
    leaves = inputs(problem)
    tensors = [leaf * 1 for leaf in leaves]  # a leaf that wants a gradient cannot be changed in place
    code = run(problem, tensors, method=method, steps=8).code
    with torch.no_grad():
        tensors[("images", "atoms", "lambda").index(changed)].mul_(0.5)
    complaint = ""
    try:
        found = torch.autograd.grad((code * weights_like(code)).sum(), leaves)
    except RuntimeError as error:
        found, complaint = expected, str(error)
    assert "modified by an inplace operation" in complaint or not complaint
    assert_same(found, expected)


@methods
def test_the_way_back_can_be_taken_again_when_the_graph_is_kept(method):
    problem = instance(DICTIONARIES["same"])
    leaves = inputs(problem)
    code = run(problem, leaves, method=method, steps=8, gradient=Unrolled(segment=3)).code
    loss = (code * weights_like(code)).sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    assert_same(torch.autograd.grad(loss, leaves), first, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, leaves)


def test_a_segment_below_one_is_refused():
    with pytest.raises(ValueError, match="segment"):
        Unrolled(segment=0)


def test_gradients_sum_over_uses_of_the_same_atoms():
    # the layer's atoms are one parameter whatever the sizes of the images it is called with
    small, large = (make(2, 1, (3, 3), 1, "same", size, seed=4) for size in ((4, 4), (6, 5)))
    atoms = small.atoms.clone().requires_grad_()
    losses = []
    for dictionary in (small, large):
        problem = Problem(draws(1, 1, *dictionary.size), ConvDictionary(atoms, 1, "same", dictionary.size), 0.1)
        losses.append(solve(problem, steps=5, lipschitz=LENGTH).code.sum())
    apart = [torch.autograd.grad(loss, atoms, retain_graph=True)[0] for loss in losses]
    (together,) = torch.autograd.grad(sum(losses), atoms)
    torch.testing.assert_close(together, apart[0] + apart[1])
