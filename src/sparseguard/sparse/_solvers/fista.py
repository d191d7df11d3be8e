"""FISTA, in residual form, with adaptive restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.sparse._autocast import own_precision, without_gradients
from sparseguard.sparse._block_layout import Layout, arranged
from sparseguard.sparse._dictionary import Atoms, Codes, Images
from sparseguard.sparse._problem import Problem
from sparseguard.sparse._solvers.base import Iteration, Method, State, refuse_twice

PerImage = Float[Tensor, "n *ones"]


@dataclass(frozen=True, eq=False)
class FistaState(State):
    """The codes, the points the next gradients are taken at, and each image's momentum.

    Args:
        code: R.
        point: Y.
        clock: t of the growing momentum.
        inertia: the beta that made ``point``.
        misfit: reconstruction minus image at the point that ``code`` came from.
    """

    code: Codes
    point: Codes
    clock: PerImage
    inertia: PerImage
    misfit: Images


@dataclass(frozen=True, kw_only=True)
class Fista(Method):
    r"""Accelerated proximal gradient steps.

    .. math:: R^+ = T_{\gamma\lambda}\bigl(Y - \gamma \nabla(Y)\bigr), \qquad
              Y^+ = R^+ + \beta (R^+ - R), \qquad \gamma = \rho / L

    The gradient is taken through the residual, analysis(synthesis(Y) - X), which costs ``2 f c k^2`` multiply-adds a
    position; the lateral-competition form (paper, Eq. 2) costs ``f^2 (2k - 1)^2`` and ignores that the synthesis is
    cropped at the border. An image whose last move opposes its momentum goes on without any (adaptive restart); this
    is decided for each image alone.

    The defaults are the greedy form: a long step and constant inertia, which need a third fewer steps than the
    original. For every beta up to 1 a step below 4/3 / L is stable on the quadratic term. ``Fista(relaxation=1,
    inertia=None, restart=False)`` is the original.

    Args:
        relaxation: rho, the step in units of 1/L; above 0 and at most 1.33.
        inertia: a constant beta, from 0 to 1; None: beta = (t - 1) / t+, t+ = (1 + sqrt(1 + 4 t^2)) / 2.
        restart: whether to restart.

    Source: Beck and Teboulle 2009; O'Donoghue and Candes 2015 (gradient restart); Liang, Luo and Schoenlieb 2022
    (greedy FISTA). Deviation from the last: inertia 0.95 instead of 1, and no shrinking of the step, which stays in
    the stable range.
    """

    relaxation: float = 1.3
    inertia: float | None = 0.95
    restart: bool = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.relaxation <= 1.33:
            raise ValueError(f"relaxation must be above 0 and at most 1.33, got {self.relaxation}.")
        if self.inertia is not None and not 0 <= self.inertia <= 1:
            raise ValueError(f"inertia must be from 0 to 1, or None, got {self.inertia}.")

    def arrange(self, problem: Problem) -> Layout:
        """Use blocks where that is faster."""
        return arranged(problem)

    def bind(self, problem: Problem, lipschitz: Float[Tensor, ""]) -> FistaIteration:
        """Return the solver of one problem.

        Raises:
            ValueError: for an ``l0`` problem.
        """
        if problem.penalty != "l1":
            raise ValueError(
                "Fista solves the l1 problem; the l0 problem needs Lca, the locally competitive algorithm."
            )
        return FistaIteration(self, problem, self.relaxation / lipschitz)

    def unrolled(
        self, problem: Problem, lipschitz: Float[Tensor, ""], steps: int, start: Codes | None, segment: int | None
    ) -> tuple[Codes, Codes | None]:
        """Return the codes with their gradient, from a formula that keeps one byte a coefficient and step."""
        lambd = problem.lambd if isinstance(problem.lambd, Tensor) else None
        if lambd is not None and lambd.requires_grad and not problem.nonnegative:
            return super().unrolled(problem, lipschitz, steps, start, segment)
        run = _Run(self, problem.detach(), lipschitz, steps, start, segment)
        found: Tensor = _Unrolled.apply(problem.images, problem.dictionary.atoms, lambd, run)
        return found, None


class FistaIteration(Iteration[FistaState]):
    """`Fista` bound to a problem."""

    def __init__(self, settings: Fista, problem: Problem, step_size: Float[Tensor, ""]) -> None:
        self.settings, self.problem, self.step_size = settings, problem, step_size
        self.descent = problem.dictionary.with_atoms(problem.dictionary.atoms * -step_size)
        threshold = (step_size * -problem.lambd).expand(len(self.descent.atoms))
        self.bias = threshold if problem.nonnegative else None

    def init(self, start: Codes | None = None) -> FistaState:
        """Take the first step; from zeros its gradient is minus the drive."""
        misfit = -self.problem.images if start is None else self.misfit(start)
        code = self._moved(misfit, start)
        ones = code.new_ones(code.shape[0], *(1,) * (code.ndim - 1))
        return FistaState(code, code, ones, torch.zeros_like(ones), misfit)

    def step(self, state: FistaState) -> FistaState:
        """Take one step from the extrapolated point."""
        misfit = self.misfit(state.point)
        code = self._moved(misfit, state.point)
        change = code - state.code
        if self.settings.inertia is None:
            clock = (1 + torch.sqrt(1 + 4 * state.clock**2)) / 2
            inertia = (state.clock - 1) / clock
        else:
            clock, inertia = state.clock, torch.full_like(state.clock, self.settings.inertia)
        if self.settings.restart:
            with without_gradients():
                opposes = (state.point - code).mul_(change).sum(dim=tuple(range(1, code.ndim)), keepdim=True) > 0
            inertia = torch.where(opposes, 0.0, inertia)
            clock = torch.where(opposes, 1.0, clock)
        return FistaState(code, torch.addcmul(code, change, inertia), clock, inertia, misfit)

    def code(self, state: FistaState) -> Codes:
        """Return the codes."""
        return state.code

    def misfit(self, code: Codes) -> Images:
        """Return reconstruction minus image."""
        return self.problem.dictionary.synthesis(code) - self.problem.images

    def _moved(self, misfit: Images, point: Codes | None) -> Codes:
        moved = self.descent.analysis(misfit, self.bias)
        if point is not None:
            moved = moved.add_(point)
        return self.problem.shrink(moved, self.step_size) if self.bias is None else torch.relu_(moved)


@dataclass(frozen=True, eq=False)
class _Run:
    """What `_Unrolled` is to do."""

    method: Fista
    problem: Problem
    lipschitz: Float[Tensor, ""]
    steps: int
    start: Codes | None
    segment: int | None


class _Unrolled(torch.autograd.Function):
    """Fixed steps of `Fista`, and the exact gradient through them.

    With code ``C_k = T(P - gamma * gradient(P))`` of point ``P = P_(k-1)``, and ``P_k = C_k + beta_k (C_k -
    C_(k-1))``, the adjoints follow the steps in reverse: ``c_k = (1 + beta_k) p_k - beta_(k+1) p_(k+1)``, and
    ``p_(k-1) = (1 - gamma * Gram) c_k`` where the coefficient was active. A step back costs what a step costs. Only a
    gradient in the atoms needs the points again; they are recomputed from the states that were kept.
    """

    @staticmethod
    def forward(ctx: Any, images: Images, atoms: Atoms, lambd: Tensor | None, run: _Run) -> Codes:
        ctx.learns = ctx.needs_input_grad[1]
        layout = arranged(run.problem, blocks=not ctx.learns)
        iteration = run.method.bind(layout.problem, run.lipschitz)
        state = iteration.init(None if run.start is None else layout.code_in(run.start))
        active, inertias = list[Tensor](), list[Tensor]()
        points, kept = list[tuple[Codes | None, Images]](), list[FistaState]()
        for done in range(run.steps):
            point = state.point if done else run.start
            state = iteration.step(state) if done else state
            active.append(state.code != 0)
            inertias.append(state.inertia)
            if ctx.learns and run.segment is None:
                points.append((point, state.misfit))
            elif ctx.learns and run.segment and done % run.segment == 0 and done < run.steps - 1:
                kept.append(state)  # but not the last, whose code is the output: that would be a cycle
        ctx.layout, ctx.iteration, ctx.active, ctx.inertias = layout, iteration, active, inertias
        ctx.points = _Points(iteration, kept, points, run)
        ctx.save_for_backward(*((atoms, images) if ctx.learns else (atoms,)))
        return layout.code_out(state.code)

    @staticmethod
    def backward(ctx: Any, upstream: Codes) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        refuse_twice("Unrolled()")
        _ = ctx.saved_tensors  # complains when they were changed since
        with own_precision(upstream.device):
            return _gradients(ctx, upstream)


def _gradients(ctx: Any, upstream: Codes) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    iteration: FistaIteration = ctx.iteration
    dictionary = iteration.problem.dictionary
    of_images, of_atoms = torch.zeros_like(iteration.problem.images), torch.zeros_like(dictionary.atoms)
    of_threshold = torch.zeros_like(ctx.active[0], dtype=upstream.dtype) if ctx.needs_input_grad[2] else None
    of_code, of_point, from_next = ctx.layout.code_in(upstream), None, None
    for k in range(len(ctx.active) - 1, -1, -1):
        if of_point is not None:
            share = ctx.inertias[k] * of_point
            of_code = of_point + share if from_next is None else of_point + share + from_next
            from_next = -share
        moved = of_code * ctx.active[k]
        scaled = moved * iteration.step_size
        image = dictionary.synthesis(scaled)
        of_images += image
        if of_threshold is not None:
            of_threshold -= scaled
        if ctx.learns:
            point, misfit = ctx.points.before(k)
            of_atoms -= dictionary.correlate(scaled, misfit)
            if point is not None:
                of_atoms -= dictionary.correlate(point, image)
        of_point = moved - dictionary.analysis(image) if k > 0 else None
    of_lambd = None if of_threshold is None else ctx.layout.code_out(of_threshold).transpose(0, 1).flatten(1).sum(1)
    return (
        ctx.layout.image_out(of_images) if ctx.needs_input_grad[0] else None,
        of_atoms if ctx.learns else None,
        of_lambd,
        None,
    )


class _Points:
    """The points that a run's gradients were taken at, and reconstruction minus image there, last first."""

    def __init__(
        self,
        iteration: FistaIteration,
        kept: list[FistaState],
        points: list[tuple[Codes | None, Images]],
        run: _Run,
    ) -> None:
        self.iteration, self.kept, self.run = iteration, kept, run
        self.points, self.first = points, 0

    def before(self, k: int) -> tuple[Codes | None, Images]:
        """Return the point that step k started from, and the misfit."""
        if not self.first <= k < self.first + len(self.points):
            self._recompute(k)
        return self.points[k - self.first]

    def _recompute(self, k: int) -> None:
        """Go on from the last state that was kept, up to step k."""
        if k == 0:
            start = self.run.start
            misfit = -self.iteration.problem.images if start is None else self.iteration.misfit(start)
            self.points, self.first = [(start, misfit)], 0
            return
        length = self.run.segment or 1
        number = (k - 1) // length
        state, self.points, self.first = self.kept[number], [], number * length + 1
        while self.first + len(self.points) < k:
            point, state = state.point, self.iteration.step(state)
            self.points.append((point, state.misfit))
        self.points.append((state.point, self.iteration.misfit(state.point)))
