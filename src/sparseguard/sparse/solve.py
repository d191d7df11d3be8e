"""The one loop that runs a solver, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from sparseguard.sparse.dictionary import ConvDictionary
from sparseguard.sparse.fista import Fista


class DivergedError(ArithmeticError):
    """The solver ended above the energy it started from, or not finite."""


class Status(IntEnum):
    """How the solver ended for one image."""

    FIXED_STEPS = 0
    DIVERGED = 1


@dataclass(frozen=True, eq=False)
class Solution:
    """Codes and what is known about them.

    Args:
        code: ``(n, f, p, q)``, nonnegative.
        residual: ``(n, c, h, w)``, image minus reconstruction.
        energy: ``(n,)``, the problem's energy at the code.
        status: ``(n,)``, a `Status` each.
        steps: proximal steps run.
    """

    code: Float[Tensor, "n f p q"]
    residual: Float[Tensor, "n c h w"]
    energy: Float[Tensor, " n"]
    status: Int8[Tensor, " n"]
    steps: int

    def require_finite(self) -> Solution:
        """Return the solution itself.

        Raises:
            DivergedError: when an image's solver diverged; a diverged code is never a value.
        """
        if self.status.numel() and bool((self.status == Status.DIVERGED).any()):
            bad = int((self.status == Status.DIVERGED).sum())
            raise DivergedError(
                f"sparse coding diverged for {bad} of {len(self.status)} images: the input is not finite, or the step "
                "size does not fit the dictionary."
            )
        return self


def solve(
    images: Float[Tensor, "n c h w"],
    dictionary: ConvDictionary,
    lambd: float,
    *,
    lipschitz: Float[Tensor, ""],
    steps: int,
) -> Solution:
    """Run ``steps`` steps of FISTA from a code of zeros.

    The number of steps is fixed, so the code of an image does not depend on the images it shares a batch with. The
    result is differentiable in ``images`` and in the atoms, exactly for the steps run; the step size 1/L counts as a
    constant.
    """
    solver = Fista(images, dictionary, lambd, lipschitz)
    state = solver.init()
    for _ in range(steps - 1):
        state = solver.step(state)
    with torch.no_grad():
        residual = images - dictionary.synthesis(state.code)
        reached = residual.square().flatten(1).sum(1) / 2 + lambd * state.code.flatten(1).sum(1)
        start = images.square().flatten(1).sum(1) / 2
        sound = reached <= start * (1 + 1e-3) + torch.finfo(start.dtype).tiny
        status = torch.where(sound, int(Status.FIXED_STEPS), int(Status.DIVERGED)).to(torch.int8)
    return Solution(state.code, residual, reached, status, steps)
