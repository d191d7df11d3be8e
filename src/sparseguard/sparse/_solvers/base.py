"""Interface of solvers: settings that, bound to a problem, give a first state and a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from sparseguard.sparse._block_layout import Layout
from sparseguard.sparse._dictionary import Codes
from sparseguard.sparse._problem import Problem

S = TypeVar("S", bound="State")


@dataclass(frozen=True, eq=False)
class State:
    """A solver's tensors between two steps, one row an image."""

    def select(self: S, index: Tensor) -> S:
        """Return the state of a subset of the images."""
        return replace(self, **{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors in order."""
        return tuple(getattr(self, field.name) for field in fields(self))


class Iteration(ABC, Generic[S]):
    """A solver bound to a problem."""

    @abstractmethod
    def init(self, start: Codes | None = None) -> S:
        """Return the state after the first step, from a code of zeros or from ``start``."""

    @abstractmethod
    def step(self, state: S) -> S:
        """Return the next state; ``state`` is not used again."""

    @abstractmethod
    def code(self, state: S) -> Codes:
        """Return the codes of a state."""

    def potentials(self, state: S) -> Codes | None:
        """Return the values whose threshold the codes are, if the method has them."""
        return None


class Method(ABC):
    """Settings of a solver."""

    def arrange(self, problem: Problem) -> Layout:
        """Return the problem in the layout of this method."""
        return Layout(problem)

    @abstractmethod
    def bind(self, problem: Problem, lipschitz: Float[Tensor, ""]) -> Iteration[Any]:
        """Return the solver of one problem.

        Raises:
            ValueError: when the method does not solve problems of this kind.
        """

    def unroll(
        self,
        problem: Problem,
        lipschitz: Float[Tensor, ""],
        steps: int,
        start: Codes | None,
        segment: int | None,
    ) -> tuple[Codes, Codes | None]:
        """Return the codes (and potentials) after ``steps`` steps with a graph through all of them.

        Args:
            problem: images, atoms or lambda require gradients.
            lipschitz: the largest eigenvalue; a constant to the gradient.
            steps: number of steps.
            start: codes to start from; a constant to the gradient.
            segment: keep the state after every so many steps only, and recompute those between in the backward pass.
        """
        iteration = self.bind(problem, lipschitz)
        state = iteration.init(start)
        kind = type(state)
        step = 1
        while step < steps:
            count = min(segment or 1, steps - step)

            def advance(*tensors: Tensor, count: int = count) -> tuple[Tensor, ...]:
                inner = kind(*tensors)
                for _ in range(count):
                    inner = iteration.step(inner)
                outputs: tuple[Tensor, ...] = inner.tensors()
                return outputs

            if segment is None:
                state = iteration.step(state)
            else:
                tensors: tuple[Tensor, ...] = recompute(advance, *state.tensors(), use_reentrant=False)
                state = kind(*tensors)
            step += count
        return iteration.code(state), iteration.potentials(state)


def refuse_double_backward(rule: str) -> None:
    """Refuse a backward pass that is itself to be differentiated.

    Raises:
        RuntimeError: within a backward pass with ``create_graph=True``.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{rule} cannot be differentiated twice (create_graph=True); use gradient=Unrolled(twice=True) for that."
        )
