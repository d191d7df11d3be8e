"""Sparse codes against other people's libraries: scikit-learn, sporco and, where it is installed, lcapt."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from oracles.dense_operator import dense, lambdas
from sparseguard.sparse import Lca, Problem, Status, hebbian_update, solve
from support.sparse_problems import SMALL, draws, image_shape, make, make_dense

double = torch.float64


def solved(problem):
    """Return the solution to a KKT residual of 1e-9."""
    found = solve(problem, steps=20_000, tolerance=1e-9)
    assert (found.status == Status.SOLVED).all()
    return found


# --- scikit-learn: coordinate descent on the dense operator


@pytest.mark.parametrize("nonnegative", [True, False], ids=["nonnegative", "signed"])
@pytest.mark.parametrize(
    "dictionary",
    [*SMALL, make(3, 2, (2, 3), 1, "valid", (5, 6)), make_dense(12, 8), make_dense(5, 9)],
    ids=["same", "same, stride 2", "valid", "valid, stride 3", "valid, channels", "dense", "dense, tall"],
)
def test_codes_are_scikit_learn_s_lasso(dictionary, nonnegative):
    features = len(dictionary.atoms)
    images = 2 * draws(3, *image_shape(dictionary), seed=4)
    matrix = dense(dictionary)
    for lambd in (0.3, torch.linspace(0.2, 0.7, features, dtype=double)):
        problem = Problem(images, dictionary, lambd, nonnegative)
        weights = lambdas(problem)
        found = solved(problem)
        assert 0 < float((found.code != 0).double().mean()) < 1
        for image, code, energy in zip(images.flatten(1).numpy(), found.code, found.energy.tolist(), strict=True):
            # its penalty has one weight, and its quadratic term is divided by the number of pixels
            lasso = Lasso(alpha=1 / len(image), positive=nonnegative, fit_intercept=False, tol=1e-14, max_iter=10**6)
            rival = lasso.fit(matrix / weights, image).coef_ / weights
            least = 0.5 * np.sum((image - matrix @ rival) ** 2) + weights @ np.abs(rival)
            assert energy == pytest.approx(least, rel=1e-10)
            np.testing.assert_allclose(code.flatten().numpy(), rival, atol=1e-6)


# --- sporco: ADMM in the frequency domain


@pytest.fixture
def cbpdn(monkeypatch):
    from sporco import fft
    from sporco.admm import cbpdn

    monkeypatch.setattr(fft, "pyfftw_threads", 1)
    monkeypatch.setattr(fft, "pyfftw_planner_effort", "FFTW_ESTIMATE")
    return cbpdn


def sporco_code(cbpdn, problem, **options):
    """Return the codes ``(n, f, h, w)`` at every pixel, an atom's upper left corner being its place."""
    settings = {
        "Verbose": False,
        "MaxMainIter": 5000,
        "RelStopTol": 1e-10,
        "rho": 1.0,
        "AutoRho": {"Enabled": False},
        "NonNegCoef": problem.nonnegative,
        **options,
    }
    atoms, images = problem.dictionary.atoms.permute(2, 3, 1, 0).numpy(), problem.images.permute(2, 3, 1, 0).numpy()
    solver = cbpdn.ConvBPDN(atoms, images, problem.lambd, cbpdn.ConvBPDN.Options(settings), dimK=1)
    code = solver.solve()
    assert len(solver.itstat) < 5000
    return code.squeeze(2).transpose(2, 3, 0, 1)


@pytest.mark.parametrize("nonnegative", [True, False], ids=["nonnegative", "signed"])
@pytest.mark.parametrize(
    "dictionary",
    [
        make(4, 1, (3, 3), 1, "valid", (9, 8)),
        make(3, 3, (4, 2), 1, "valid", (8, 9)),
        make(6, 1, (5, 5), 1, "valid", (12, 12)),
    ],
    ids=["one channel", "three channels, even kernel", "large kernel"],
)
def test_codes_are_sporco_s_where_no_atom_crosses_the_border(cbpdn, dictionary, nonnegative):
    problem = Problem(draws(2, *image_shape(dictionary), seed=4), dictionary, 0.4, nonnegative)
    found = solved(problem)
    rival = sporco_code(cbpdn, problem, NoBndryCross=True)
    _, p, q = dictionary.code_shape
    assert (rival[:, :, p:] == 0).all()
    assert (rival[:, :, :, q:] == 0).all()
    assert 0 < float((found.code != 0).double().mean()) < 1
    np.testing.assert_allclose(found.code.numpy(), rival[:, :, :p, :q], atol=1e-7)


def test_sporco_s_circular_codes_are_another_problem_s(cbpdn):
    # what the comparison above would be without NoBndryCross: atoms wrap around the border
    dictionary = make(4, 1, (3, 3), 1, "valid", (9, 8))
    problem = Problem(draws(2, 1, 9, 8, seed=4), dictionary, 0.4)
    rival = sporco_code(cbpdn, problem, NoBndryCross=False)
    assert np.abs(solved(problem).code.numpy() - rival[:, :, :7, :6]).max() > 0.1


# --- lcapt: the locally competitive algorithm, step by step

GEOMETRIES = {
    "same": make(5, 2, (5, 5), 1, "same", (10, 9)),
    "same, stride 2": make(5, 1, (5, 5), 2, "same", (10, 12)),
    "valid": make(5, 2, (5, 3), 1, "valid", (10, 9)),
    "valid, stride 2": make(5, 1, (5, 5), 2, "valid", (10, 12)),  # its reconstruction needs (size - kernel) odd here
    "valid, even kernel": make(4, 1, (4, 4), 1, "valid", (9, 9)),
}
VARIABLES = ["inputs", "input_drives", "states", "acts", "recons", "recon_errors", "conns"]


def lcapt_model(directory, problem, steps, tau, **settings):
    """Return lcapt's model with the problem's atoms, in double precision, on images as they are."""
    lca = pytest.importorskip("lcapt.lca")
    atoms = problem.dictionary.atoms
    model = lca.LCAConv2D(
        int(atoms.shape[0]),
        int(atoms.shape[1]),
        str(directory),
        kernel_size=tuple(int(side) for side in atoms.shape[2:]),
        stride=problem.dictionary.stride,
        lambda_=problem.lambd,
        tau=tau,
        lca_iters=steps,
        pad=problem.dictionary.padding,
        return_vars=VARIABLES,
        nonneg=problem.nonnegative,
        transfer_func="soft_threshold" if problem.penalty == "l1" else "hard_threshold",
        input_zero_mean=False,
        input_unit_var=False,
        **settings,
    ).double()
    model.assign_weight_values(atoms, normalize=False)
    return model


def lcapt_values(directory, problem, steps, tau):
    found = lcapt_model(directory, problem, steps, tau)(problem.images)
    return dict(zip(VARIABLES, (value.detach() for value in found), strict=True))


@pytest.mark.parametrize("nonnegative", [True, False], ids=["nonnegative", "signed"])
@pytest.mark.parametrize("penalty", ["l1", "l0"], ids=["soft", "hard"])
@pytest.mark.parametrize("dictionary", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_lca_is_lcapt_at_every_position(tmp_path, dictionary, penalty, nonnegative):
    problem = Problem(draws(2, *image_shape(dictionary), seed=4), dictionary, 0.3, nonnegative, penalty)
    for steps, tau in ((1, 10.0), (2, 10.0), (60, 10.0), (300, 50.0)):
        theirs = lcapt_values(tmp_path, problem, steps, tau)
        ours = solve(problem, Lca(tau=tau), steps=steps)
        close = {"rtol": 0, "atol": 1e-9}
        torch.testing.assert_close(ours.code, theirs["acts"], **close)
        torch.testing.assert_close(ours.drive, theirs["input_drives"], **close)
        torch.testing.assert_close(ours.reconstruction, theirs["recons"], **close)
        torch.testing.assert_close(ours.residual, theirs["recon_errors"], **close)
        torch.testing.assert_close(ours.connectivity, theirs["conns"], **close)
        # theirs are the potentials after the last update, ours those that the code was read from
        later = solve(problem, Lca(tau=tau), steps=steps + 1)
        torch.testing.assert_close(later.potentials, theirs["states"], **close)
    assert 0 < float((ours.code != 0).double().mean()) < 1


@pytest.mark.parametrize("dictionary", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_the_hebbian_update_is_lcapt_s(tmp_path, dictionary):
    problem = Problem(draws(3, *image_shape(dictionary), seed=4), dictionary, 0.3)
    model = lcapt_model(tmp_path, problem, 60, 10.0, eta=0.7)
    found = dict(zip(VARIABLES, model(problem.images), strict=True))
    model.update_weights(found["acts"], found["recon_errors"])
    ours = solve(problem, Lca(tau=10.0), steps=60)
    active = (ours.code != 0).sum((0, 2, 3)).double()
    updated = hebbian_update(dictionary.atoms, dictionary.correlate(ours.code, ours.residual), active, 0.7)
    assert (updated - dictionary.atoms).abs().max() > 1e-2
    torch.testing.assert_close(updated, model.get_weights().detach(), rtol=0, atol=1e-7)  # it counts in float32


def test_fista_finds_lcapt_s_energy_or_less(tmp_path):
    for name, gap in (("valid, even kernel", 1e-3), ("same", 0.2)):
        dictionary = GEOMETRIES[name]
        problem = Problem(draws(2, *image_shape(dictionary), seed=4), dictionary, 0.5)
        theirs = problem.energy(lcapt_values(tmp_path, problem, 3000, 20.0)["acts"])
        ours = solved(problem).energy
        assert (ours <= theirs + 1e-9).all()
        assert (ours >= theirs * (1 - gap)).all()


def test_lcapt_with_scaled_atoms_still_follows_the_same_equation(tmp_path):
    # the literal dynamics leave out each atom's own inner product whatever its norm is
    dictionary = GEOMETRIES["valid"].with_atoms(GEOMETRIES["valid"].atoms * 0.9)
    problem = Problem(draws(1, *image_shape(dictionary), seed=4), dictionary, 0.3)
    theirs = lcapt_values(tmp_path, problem, 40, 10.0)["acts"]
    torch.testing.assert_close(solve(problem, Lca(tau=10.0), steps=40).code, theirs, rtol=0, atol=1e-9)
