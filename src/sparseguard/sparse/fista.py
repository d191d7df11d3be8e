"""FISTA for nonnegative sparse codes, in residual form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.sparse.dictionary import ConvDictionary


@dataclass(frozen=True, eq=False)
class FistaState:
    """The code, the extrapolated point the next gradient is taken at, and the momentum's counter."""

    code: Float[Tensor, "n f p q"]
    point: Float[Tensor, "n f p q"]
    momentum: float


@dataclass(frozen=True, eq=False)
class Fista:
    r"""Accelerated proximal gradient steps (Beck and Teboulle 2009) on the problem of `sparseguard.sparse.problem`.

    .. math:: R^+ = \mathrm{relu}\bigl(Y - (\nabla(Y) + \lambda) / L\bigr), \qquad
              Y^+ = R^+ + \tfrac{t - 1}{t^+} (R^+ - R), \qquad t^+ = \tfrac{1 + \sqrt{1 + 4 t^2}}{2}

    The gradient is taken through the residual, analysis(synthesis(Y) - X), which costs ``2 f c k^2`` multiply-adds a
    position; the lateral-competition form (paper, Eq. 2) costs ``f^2 (2k - 1)^2`` and ignores that the synthesis is
    cropped at the border.
    """

    images: Float[Tensor, "n c h w"]
    dictionary: ConvDictionary
    lambd: float
    lipschitz: Float[Tensor, ""]

    def init(self) -> FistaState:
        """Return the state after the first step from a code of zeros (where the gradient is minus the drive)."""
        drive = self.dictionary.analysis(self.images)
        code = torch.relu((drive - self.lambd) / self.lipschitz)
        return FistaState(code, code, (1 + math.sqrt(5)) / 2)

    def step(self, state: FistaState) -> FistaState:
        """Return the state one step further."""
        residual = self.dictionary.synthesis(state.point) - self.images
        slope = self.dictionary.analysis(residual)
        code = torch.relu(state.point - (slope + self.lambd) / self.lipschitz)
        momentum = (1 + math.sqrt(1 + 4 * state.momentum**2)) / 2
        point = code + (state.momentum - 1) / momentum * (code - state.code)
        return FistaState(code, point, momentum)
