"""The locally competitive algorithm as published."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.sparse._dictionary import Codes
from sparseguard.sparse._problem import Problem
from sparseguard.sparse._solvers.base import Iteration, Method, State


@dataclass(frozen=True, eq=False)
class LcaState(State):
    """The membrane potentials P."""

    potentials: Codes


@dataclass(frozen=True, kw_only=True)
class Lca(Method):
    r"""Euler steps of the dynamics in the paper's Eq. 2.

    .. math:: P^+ = P + \tfrac1\tau (\mathrm{drive} - P - R * G), \qquad R = T_\lambda(P)

    G is the connectivity: inner products of shifted atoms without each atom's own. With ``valid`` padding the fixed
    point is the minimum of Eq. 1. With ``same`` padding it is not: G ignores that the reconstruction is cropped
    at the border. The first step's potentials are zeros, and the code is read before the last update of the
    potentials, as the public library lca-pytorch does.

    Args:
        tau: time constant, in steps; at least 1.

    Source: paper, Eq. 2; Rozell et al. 2008.
    """

    tau: float = 100.0

    def __post_init__(self) -> None:
        """Check tau."""
        if not self.tau >= 1:
            raise ValueError(f"tau must be at least 1, got {self.tau}.")

    def bind(self, problem: Problem, lipschitz: Float[Tensor, ""]) -> LcaIteration:
        """Return the dynamics for one problem; ``lipschitz`` is not used."""
        return LcaIteration(problem, self.tau)


class LcaIteration(Iteration[LcaState]):
    """`Lca` bound to a problem."""

    def __init__(self, problem: Problem, tau: float) -> None:
        self.problem, self.tau = problem, tau
        self.drive = problem.drive()
        self.connectivity = problem.dictionary.connectivity()

    def init(self, start: Codes | None = None) -> LcaState:
        """Start from potentials of zeros, or from those whose code is ``start``."""
        if start is None:
            return LcaState(torch.zeros_like(self.drive))
        lift = 0.0 if self.problem.penalty == "l0" else self.problem.threshold
        return LcaState(start + lift * start.sign())

    def step(self, state: LcaState) -> LcaState:
        """Return the potentials one Euler step later."""
        competition = self.problem.dictionary.inhibition(self.code(state), self.connectivity)
        return LcaState(state.potentials + (self.drive - state.potentials - competition) / self.tau)

    def code(self, state: LcaState) -> Codes:
        """Return the thresholded potentials."""
        return self.problem.shrink(state.potentials)

    def potentials(self, state: LcaState) -> Codes:
        """Return the potentials whose threshold the code is."""
        return state.potentials
