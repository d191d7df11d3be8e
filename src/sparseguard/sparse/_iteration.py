"""Iteration of a solver on a problem, for a fixed number of steps or until each image is solved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sparseguard.sparse._block_layout import Layout
from sparseguard.sparse._dictionary import Codes
from sparseguard.sparse._problem import Problem
from sparseguard.sparse._solvers.base import Iteration, Method, State

Steps = Int64[Tensor, " n"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """A problem with the settings of its solution.

    Args:
        problem: the problem.
        method: the solver.
        lipschitz: the largest eigenvalue of the Gram operator.
        steps: at most this many; exactly this many without a tolerance.
        tolerance: an image is finished when its KKT residual is at most this.
        check_every: steps between two checks of the KKT residual. A check waits for the device.
        start: codes to start from instead of zeros.
        trace: whether to record every step.
    """

    problem: Problem
    method: Method
    lipschitz: Float[Tensor, ""]
    steps: int
    tolerance: float | None = None
    check_every: int = 10
    start: Codes | None = None
    trace: bool = False


@dataclass(frozen=True, eq=False)
class Trace:
    """Values after each step, one column an image; a finished image keeps its last values.

    Args:
        energy: ``(steps, n)``.
        active: ``(steps, n)``, the fraction of coefficients that are not zero.
        residual: ``(steps, n)``, the Euclidean norm of image minus reconstruction.
    """

    energy: Float[Tensor, "steps n"]
    active: Float[Tensor, "steps n"]
    residual: Float[Tensor, "steps n"]


@dataclass(frozen=True, eq=False)
class Iterated:
    """Result of a task.

    Args:
        code: the codes.
        potentials: values whose threshold the codes are, for methods that have them.
        steps: number of steps for each image.
        solved: which images met the tolerance; None without one.
        trace: if requested.
    """

    code: Codes
    potentials: Codes | None
    steps: Steps
    solved: Bool[Tensor, " n"] | None
    trace: Trace | None


@torch.no_grad()
def iterate(task: Task) -> Iterated:
    """Run a task without a graph.

    Every image stops at its own KKT residual, so a code does not depend on the other images of the batch. Without a
    tolerance and a trace nothing waits for the device between two steps.
    """
    layout = task.method.arrange(task.problem)
    start = None if task.start is None else layout.code_in(task.start)
    running = _Running(task, layout, start)
    for step in range(1, task.steps + 1):
        if step > 1:
            running.step()
        if task.trace:
            running.record()
        if task.tolerance is not None and (step % task.check_every == 0 or step == task.steps):
            running.retire(task.tolerance, step)
            if running.is_empty:
                break
    return running.result()


class _Running:
    """Unfinished images, and results of finished ones."""

    def __init__(self, task: Task, layout: Layout, start: Codes | None) -> None:
        self.task, self.layout, self.problem = task, layout, layout.problem
        self.iteration: Iteration[Any] = task.method.bind(self.problem, task.lipschitz)
        self.state: State = self.iteration.init(start)
        self.steps = torch.full((task.problem.images.shape[0],), task.steps, device=task.problem.images.device)
        self.numbers = torch.arange(self.steps.shape[0], device=self.steps.device)
        self.code: Codes | None = None
        self.potentials: Codes | None = None
        self.solved = torch.zeros_like(self.steps, dtype=torch.bool)
        self.rows: list[Tensor] = []

    @property
    def is_empty(self) -> bool:
        return self.numbers.shape[0] == 0

    def step(self) -> None:
        self.state = self.iteration.step(self.state)

    def record(self) -> None:
        """Record energy, fraction of active coefficients and residual."""
        code = self.layout.code_out(self.iteration.code(self.state))
        problem = self.task.problem.select(self.numbers)
        row = self.rows[-1].clone() if self.rows else torch.zeros(3, self.steps.shape[0]).to(problem.images)
        row[0, self.numbers] = problem.energy(code)
        row[1, self.numbers] = (code != 0).to(row.dtype).flatten(1).mean(1)
        row[2, self.numbers] = torch.linalg.vector_norm(problem.residual(code).flatten(1), dim=1)
        self.rows.append(row)

    def retire(self, tolerance: float, step: int) -> None:
        """Store the results of solved images and continue without them."""
        solved = self.problem.kkt_residual(self.iteration.code(self.state)) <= tolerance
        if not bool(solved.any()):
            return
        self._store(solved, step)
        self.solved[self.numbers[solved]] = True
        rest = ~solved
        self.numbers, self.problem = self.numbers[rest], self.problem.select(rest)
        self.state = self.state.select(rest)
        self.iteration = self.task.method.bind(self.problem, self.task.lipschitz)

    def result(self) -> Iterated:
        """Return everything in the order of the images."""
        if self.code is None:
            code, potentials = self.iteration.code(self.state), self.iteration.potentials(self.state)
        else:
            self._store(torch.ones_like(self.numbers, dtype=torch.bool), self.task.steps)
            code, potentials = self.code, self.potentials
        return Iterated(
            self.layout.code_out(code),
            None if potentials is None else self.layout.code_out(potentials),
            self.steps,
            None if self.task.tolerance is None else self.solved,
            Trace(*torch.stack(self.rows, dim=1)) if self.rows else None,
        )

    def _store(self, which: Bool[Tensor, " m"], step: int) -> None:
        code, potentials = self.iteration.code(self.state), self.iteration.potentials(self.state)
        numbers = self.numbers[which]
        if self.code is None:
            self.code = code.new_empty(self.steps.shape[0], *code.shape[1:])
            self.potentials = None if potentials is None else torch.empty_like(self.code)
        self.code[numbers] = code[which]
        self.steps[numbers] = step
        if self.potentials is not None and potentials is not None:
            self.potentials[numbers] = potentials[which]
