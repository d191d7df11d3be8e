"""Gradients of codes: rules of differentiation through the solver."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparseguard.sparse._autocast import disable_autocast
from sparseguard.sparse._block_layout import Layout
from sparseguard.sparse._dictionary import Codes
from sparseguard.sparse._iteration import Iterated, Task, iterate
from sparseguard.sparse._problem import Problem
from sparseguard.sparse._solvers.base import Method, refuse_double_backward


class NotConvergedError(ArithmeticError):
    """A gradient is valid at a solution only, and the code is not one."""


class NotConvergedWarning(UserWarning):
    """A gradient was replaced by another, because the code is not a solution."""


class Gradient(ABC):
    """A rule for the gradient of codes in images, atoms and lambda. It never changes the codes."""

    @abstractmethod
    def solve(self, task: Task) -> Iterated:
        """Run the task and return codes with a graph."""


@dataclass(frozen=True, kw_only=True)
class Detached(Gradient):
    """No gradient."""

    def solve(self, task: Task) -> Iterated:
        """Run the task without a graph."""
        return iterate(replace(task, problem=task.problem.detach()))


@dataclass(frozen=True, kw_only=True)
class Unrolled(Gradient):
    r"""The exact gradient through the steps that were run; the step size 1/L and the start count as constants.

    Args:
        segment: keep the state after every so many steps only, and recompute those between in the backward pass. None
            keeps all. `Fista` needs this for gradients in the atoms only; for others it keeps one byte a coefficient
            and step in any case.
        twice: let autograd record every operation, so that the gradient can be differentiated again. Slower.
    """

    segment: int | None = None
    twice: bool = False

    def __post_init__(self) -> None:
        """Check the segment."""
        if self.segment is not None and self.segment < 1:
            raise ValueError(f"segment must be at least 1, got {self.segment}.")

    def solve(self, task: Task) -> Iterated:
        """Run the task with a graph; with a tolerance the number of steps is determined first, for each image alone."""
        if task.tolerance is None and not task.trace:
            code, potentials = self._unroll(task, task.problem, task.steps, task.start)
            steps = torch.full((code.shape[0],), task.steps, device=code.device)
            return Iterated(code, potentials, steps, None, None)
        result = iterate(replace(task, problem=task.problem.detach()))
        codes, indices = [], []
        for steps in result.steps.unique().tolist():
            chosen = (result.steps == steps).nonzero().squeeze(1)
            start = None if task.start is None else task.start[chosen]
            codes.append(self._unroll(task, task.problem.select(chosen), steps, start)[0])
            indices.append(chosen)
        if not codes:
            return replace(result, code=self._unroll(task, task.problem, 1, task.start)[0])
        return replace(result, code=torch.cat(codes)[torch.cat(indices).argsort()])

    def _unroll(self, task: Task, problem: Problem, steps: int, start: Codes | None) -> tuple[Codes, Codes | None]:
        if self.twice:
            return Method.unroll(task.method, problem, task.lipschitz, steps, start, self.segment)
        return task.method.unroll(problem, task.lipschitz, steps, start, self.segment)


@dataclass(frozen=True, kw_only=True)
class OneStep(Gradient):
    r"""The gradient of one proximal gradient step from the code: :math:`\gamma W` where it is active.

    It is the first term of the series for the implicit gradient, shrunk by the step size; cheap, and biased.

    Source: Bolte, Pauwels and Vaiter 2023 (one-step differentiation).
    """

    def solve(self, task: Task) -> Iterated:
        """Run the task without a graph, and attach one step."""
        result = iterate(replace(task, problem=task.problem.detach()))
        return replace(result, code=_attach_step(task.problem, result.code, task.lipschitz))


@dataclass(frozen=True, kw_only=True)
class StraightThrough(Gradient):
    r"""The gradient of the drive :math:`X * W`, as if the code were the analysis of its input.

    It reaches coefficients that are zero, whose true gradient is zero. Biased; for attacks that work around
    gradients that the layer hides.

    Source: Athalye, Carlini and Wagner 2018 (backward pass differentiable approximation).
    """

    def solve(self, task: Task) -> Iterated:
        """Run the task without a graph, and attach the drive."""
        result = iterate(replace(task, problem=task.problem.detach()))
        drive = task.problem.drive()
        return replace(result, code=result.code + (drive - drive.detach()))


@dataclass(frozen=True, kw_only=True)
class Implicit(Gradient):
    r"""The gradient of the solution itself, by the implicit function theorem.

    With support S, :math:`G_{SS} \, dR_S = d(W^\top X - \lambda)_S - (dG\, R)_S`, solved backwards by conjugate
    gradients. It is right at a solution only (and where no coefficient is about to become active): after 10 to 20
    steps its cosine with the true gradient was between 0.06 and 0.74.

    Args:
        kkt: a code counts as a solution when its KKT residual is at most this.
        residual: the conjugate gradients' relative residual must come below this.
        max_steps: of conjugate gradients.
        otherwise: what to use, with a warning, for images that do not meet ``kkt``; an image that does not meet
            ``residual`` gets the one-step gradient then. None refuses.

    Raises:
        NotConvergedError: when an image does not meet a condition, and there is no ``otherwise``.
    """

    kkt: float = 1e-4
    residual: float = 1e-4
    max_steps: int = 1000
    otherwise: Gradient | None = None

    def solve(self, task: Task) -> Iterated:
        """Run the task without a graph, and attach the implicit gradient where it holds."""
        plain = task.problem.detach()
        result = iterate(replace(task, problem=plain))
        residual = plain.kkt_residual(result.code)
        holds = residual <= self.kkt
        if bool(holds.all()):
            return replace(result, code=self._attach(task, task.problem, result.code))
        message = (
            f"{int((~holds).sum())} of {len(holds)} codes are not solved well enough for the implicit gradient (worst "
            f"KKT residual {float(residual.max()):.1e}, needed {self.kkt:.1e}): run more steps, or set a tolerance."
        )
        if self.otherwise is None:
            raise NotConvergedError(message)
        warnings.warn(f"{message} They get another gradient instead.", NotConvergedWarning, stacklevel=2)
        start = None if task.start is None else task.start[~holds]
        other = self.otherwise.solve(replace(task, problem=task.problem.select(~holds), start=start, trace=False))
        code = result.code.clone()
        code[holds] = self._attach(task, task.problem.select(holds), result.code[holds])
        code[~holds] = other.code
        return replace(result, code=code)

    def _attach(self, task: Task, problem: Problem, code: Codes) -> Codes:
        active = code != 0
        condition = problem.gradient(code)
        if problem.penalty == "l1":
            condition = condition + problem.threshold * code.sign()
        layout = task.method.arrange(problem.detach())
        solver = _Conjugate(layout, layout.code_in(active.to(code.dtype)), 1 / task.lipschitz, self)
        attached: Tensor = _InverseGram.apply(condition, code, solver)
        return attached


def _attach_step(problem: Problem, code: Codes, lipschitz: Float[Tensor, ""]) -> Codes:
    stepped = problem.shrink(code - problem.gradient(code) / lipschitz, 1 / lipschitz)
    return code + (stepped - stepped.detach())


class _InverseGram(torch.autograd.Function):
    """The codes as they are, with the gradient of the solution of ``condition = 0`` on the support."""

    @staticmethod
    def forward(ctx: Any, condition: Codes, code: Codes, solver: _Conjugate) -> Codes:
        ctx.solver = solver
        return code.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Codes) -> tuple[Codes, None, None]:
        refuse_double_backward("Implicit()")
        with disable_autocast(upstream.device):
            return -ctx.solver(upstream), None, None


@dataclass(frozen=True, eq=False)
class _Conjugate:
    """Conjugate gradients on the active part of the Gram operator, for every image by itself."""

    layout: Layout
    active: Float[Tensor, "n *code"]
    step_size: Float[Tensor, ""]
    settings: Implicit

    def __call__(self, right: Codes) -> Codes:
        """Return the solution, zero where the code is."""
        right = self.layout.code_in(right) * self.active
        solution, solved = self._solve(right)
        if not bool(solved.all()):
            message = (
                f"conjugate gradients did not come below {self.settings.residual:.1e} for {int((~solved).sum())} of "
                f"{len(solved)} images: their active atoms are nearly dependent."
            )
            if self.settings.otherwise is None:
                raise NotConvergedError(message)
            warnings.warn(f"{message} They get the one-step gradient.", NotConvergedWarning, stacklevel=2)
            solution = torch.where(solved.view(-1, *(1,) * (right.ndim - 1)), solution, right * self.step_size)
        return self.layout.code_out(solution)

    def _solve(self, right: Codes) -> tuple[Codes, Bool[Tensor, " n"]]:
        solution, residual, direction = torch.zeros_like(right), right, right
        size = _dot(residual, residual)
        goal, tiny = size * self.settings.residual**2, torch.finfo(right.dtype).tiny
        for step in range(self.settings.max_steps):
            if step % 10 == 0 and bool((size <= goal).all()):
                break
            image = self._gram(direction)
            length = torch.where(size > goal, size / _dot(direction, image).clamp_min(tiny), 0.0)
            solution = solution + length * direction
            residual = residual - length * image
            before, size = size, _dot(residual, residual)
            direction = residual + size / before.clamp_min(tiny) * direction
        return solution, (size <= goal).flatten()

    def _gram(self, code: Codes) -> Codes:
        dictionary = self.layout.problem.dictionary
        return dictionary.analysis(dictionary.synthesis(code)) * self.active


def _dot(first: Codes, second: Codes) -> Float[Tensor, "n *ones"]:
    product: Tensor = torch.mul(first, second).sum(dim=tuple(range(1, first.ndim)), keepdim=True)
    return product
