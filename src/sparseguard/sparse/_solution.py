"""Solution of a sparse-coding problem and its properties."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from sparseguard.sparse._adjoint import Gradient, Unrolled
from sparseguard.sparse._autocast import disable_autocast, disable_gradients
from sparseguard.sparse._dictionary import Codes, Images
from sparseguard.sparse._iteration import Iterated, Steps, Task, Trace, iterate
from sparseguard.sparse._lipschitz import lipschitz_bound
from sparseguard.sparse._problem import PerImage, Problem
from sparseguard.sparse._solvers.base import Method
from sparseguard.sparse._solvers.fista import Fista


class DivergedError(ArithmeticError):
    """The solver ended above the energy of an empty code, or not finite."""


class Status(IntEnum):
    """Outcome of the solver for one image."""

    FIXED_STEPS = 0
    DIVERGED = 1
    SOLVED = 2
    MAX_STEPS = 3


@dataclass(frozen=True, eq=False)
class Solution:
    """Codes and their properties; derived properties are computed on first use, without a graph.

    Args:
        problem: the problem, detached.
        code: ``(n, f, ...)``, with a graph if requested.
        residual: image minus reconstruction.
        energy: ``(n,)``, the problem's energy at the code.
        status: ``(n,)``, a `Status` each.
        steps: ``(n,)``, number of steps.
        trace: values after each step, if requested.
    """

    problem: Problem
    code: Codes
    residual: Images
    energy: PerImage
    status: Int8[Tensor, " n"]
    steps: Steps
    trace: Trace | None
    _potentials: Codes | None

    @cached_property
    def drive(self) -> Codes:
        """Analysis of the images."""
        with self._disable_autocast():
            return self.problem.drive()

    @cached_property
    def reconstruction(self) -> Images:
        """Synthesis of the code."""
        return self.problem.images - self.residual

    @cached_property
    def connectivity(self) -> Tensor:
        """Inner products of shifted atoms, each atom's own excluded (see `Dictionary.connectivity`)."""
        with self._disable_autocast():
            return self.problem.dictionary.connectivity()

    @cached_property
    def potentials(self) -> Codes:
        """Values whose threshold the code is: the locally competitive algorithm's P, else code minus gradient."""
        code = self.code.detach()
        with self._disable_autocast():
            return code - self.problem.gradient(code) if self._potentials is None else self._potentials.detach()

    @cached_property
    def kkt(self) -> PerImage:
        """Distance of each code from a solution (`Problem.kkt_residual`)."""
        with self._disable_autocast():
            return self.problem.kkt_residual(self.code.detach())

    def _disable_autocast(self) -> AbstractContextManager[None]:
        return disable_autocast(self.code.device)

    def require_finite(self) -> Solution:
        """Return the solution itself.

        Raises:
            DivergedError: when an image's solver diverged; a diverged code is never a value.
        """
        bad = int((self.status == Status.DIVERGED).sum())
        if bad:
            raise DivergedError(
                f"sparse coding diverged for {bad} of {len(self.status)} images: the input is not finite, or the step "
                "size does not fit the dictionary."
            )
        return self


def solve(
    problem: Problem,
    method: Method | None = None,
    *,
    steps: int = 30,
    tolerance: float | None = None,
    check_every: int = 10,
    start: Codes | None = None,
    gradient: Gradient | None = None,
    lipschitz: Float[Tensor, ""] | None = None,
    trace: bool = False,
) -> Solution:
    """Solve a sparse-coding problem for every image.

    Args:
        problem: images, dictionary, lambda.
        method: `Fista` (the default) or `Lca`.
        steps: number of steps; with a tolerance, at most this many.
        tolerance: an image is finished when its KKT residual is at most this, independently of the other images.
        check_every: steps between two checks of the KKT residual.
        start: codes to start from, for example an earlier solution; absent: zeros.
        gradient: `Unrolled` (the default), `Implicit`, `OneStep` or `Detached`; used where the problem's images, atoms
            or lambda require a gradient.
        lipschitz: an upper bound of the Gram operator's largest eigenvalue; absent: `lipschitz_bound`.
        trace: record energy, active fraction and residual of every step.

    Raises:
        ValueError: for a setting out of range, or a start of another shape than the codes.

    Example:
        >>> import torch
        >>> from sparseguard.sparse import ConvDictionary, Problem, random_atoms, solve
        >>> atoms = random_atoms(4, 1, (3, 3), torch.Generator().manual_seed(0)).double()
        >>> images = torch.linspace(-1, 1, 64, dtype=torch.float64).view(1, 1, 8, 8)
        >>> problem = Problem(images, ConvDictionary(atoms, 1, "valid", (8, 8)), 0.1)
        >>> solution = solve(problem, steps=10_000, tolerance=1e-6)
        >>> solution.status.tolist(), bool(solution.kkt.max() <= 1e-6)
        ([2], True)
    """
    if steps < 1 or check_every < 1:
        raise ValueError(f"steps and check_every must be at least 1, got {steps} and {check_every}.")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be above 0, got {tolerance}.")
    expected = (problem.images.shape[0], *problem.dictionary.code_shape)
    if start is not None and tuple(start.shape) != expected:
        raise ValueError(f"start must have the shape of the codes, {expected}, got {tuple(start.shape)}.")
    plain = problem.snapshot()
    task = Task(
        problem=problem,
        method=method or Fista(),
        lipschitz=lipschitz_bound(plain.dictionary) if lipschitz is None else lipschitz,
        steps=steps,
        tolerance=tolerance,
        check_every=check_every,
        start=None if start is None else start.detach(),
        trace=trace,
    )
    if torch.compiler.is_exporting():
        gradient = Unrolled(twice=True)  # of operations that can be exported
    elif not problem.requires_grad:
        return _assess(plain, iterate(task))
    return _assess(plain, (gradient or Unrolled()).solve(task))


def _assess(problem: Problem, result: Iterated) -> Solution:
    code = result.code.detach()
    with disable_gradients():
        residual = problem.residual(code)
        energy = problem.compute_energy(code, residual)
        empty = problem.images.square().flatten(1).sum(1) / 2
    decreased = energy <= empty * (1 + 1e-3) + torch.finfo(empty.dtype).tiny
    outcome = torch.full_like(result.steps, int(Status.FIXED_STEPS))
    if result.solved is not None:
        outcome = torch.where(result.solved, int(Status.SOLVED), int(Status.MAX_STEPS))
    status = torch.where(decreased, outcome, int(Status.DIVERGED)).to(torch.int8)
    return Solution(problem, result.code, residual, energy, status, result.steps, result.trace, result.potentials)
