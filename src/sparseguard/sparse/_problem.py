r"""The sparse-coding problem (paper, Eq. 1) and the optimality conditions of its solution.

.. math:: \min_{R \ge 0} \; E(R) = \tfrac12 \|X - R \circledast W\|_2^2 + \lambda \sum R

It is the reference for every solver, independent of how a code was computed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.sparse._dictionary import Codes, Dictionary, Images

PerImage = Float[Tensor, " n"]
Penalty = Literal["l1", "l0"]


@dataclass(frozen=True, eq=False)
class Problem:
    r"""Images to be represented by few atoms of a dictionary.

    .. math:: E(R) = \tfrac12 \|X - R \circledast W\|_2^2 + \sum_f \lambda_f \|R_f\|_1
              \qquad\text{or}\qquad \tfrac12 \|X - R \circledast W\|_2^2 + \sum_f \tfrac12 \lambda_f^2 \|R_f\|_0

    Args:
        images: ``(n, ...)``, in the shape that the dictionary takes.
        dictionary: the linear operator from codes to images.
        lambd: sparsity weight, one for all features or one for each ``(f,)``.
        nonnegative: whether codes must not be negative.
        penalty: ``l1`` (soft threshold, convex) or ``l0`` (hard threshold at lambda; not convex).
    """

    images: Images
    dictionary: Dictionary
    lambd: float | Float[Tensor, " f"]
    nonnegative: bool = True
    penalty: Penalty = "l1"

    @property
    def threshold(self) -> float | Tensor:
        """Lambda, shaped to broadcast with codes."""
        return self.dictionary.per_feature(self.lambd) if isinstance(self.lambd, Tensor) else self.lambd

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient is required in images, atoms or lambda."""
        tensors = (self.images, self.dictionary.atoms, self.lambd)
        return torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in tensors)

    def detach(self) -> Problem:
        """Return the problem without graphs."""
        lambd = self.lambd.detach() if isinstance(self.lambd, Tensor) else self.lambd
        dictionary = self.dictionary.with_atoms(self.dictionary.atoms.detach())
        return replace(self, images=self.images.detach(), dictionary=dictionary, lambd=lambd)

    def snapshot(self) -> Problem:
        """Return the problem without graphs, with a copy of the atoms."""
        plain = self.detach()
        return replace(plain, dictionary=plain.dictionary.with_atoms(plain.dictionary.atoms.clone()))

    def select(self, index: Tensor) -> Problem:
        """Return the problem of a subset of the images, by index or mask."""
        return replace(self, images=self.images[index])

    def zeros(self) -> Codes:
        """Return codes of zeros."""
        return self.images.new_zeros(self.images.shape[0], *self.dictionary.code_shape)

    def drive(self) -> Codes:
        """Return the analysis of the images."""
        return self.dictionary.analysis(self.images)

    def residual(self, code: Codes) -> Images:
        """Return image minus reconstruction."""
        return self.images - self.dictionary.synthesis(code)

    def energy(self, code: Codes) -> PerImage:
        """Return E of each image."""
        return self.compute_energy(code, self.residual(code))

    def compute_energy(self, code: Codes, residual: Images) -> PerImage:
        """Return E of each image, given its residual."""
        if self.penalty == "l1":
            cost = code.abs() * self.threshold
        else:
            cost = (code != 0) * (torch.as_tensor(self.threshold, dtype=code.dtype, device=code.device).square() / 2)
        return residual.square().flatten(1).sum(1) / 2 + cost.flatten(1).sum(1)

    def gradient(self, code: Codes) -> Codes:
        r"""Return the gradient of the quadratic term, :math:`(R \circledast W - X) * W`."""
        return -self.dictionary.analysis(self.residual(code))

    def shrink(self, code: Codes, scale: float | Tensor = 1.0) -> Codes:
        """Apply the threshold: soft at ``scale`` times lambda, or hard at lambda; see ``nonnegative`` for the sign."""
        if self.penalty == "l0":
            size = code if self.nonnegative else code.abs()
            return torch.where(size > self.threshold, code, torch.zeros_like(code))
        positive = torch.relu(code - self.threshold * scale)
        return positive if self.nonnegative else positive - torch.relu(-code - self.threshold * scale)

    def kkt_residual(self, code: Codes) -> PerImage:
        r"""Return the distance of each code from a fixed point: :math:`\max |R - T_\lambda(R - \nabla)|`.

        T is the threshold of `shrink`. For ``l1`` the residual is 0 exactly at a solution; the problem is convex, so a
        zero proves a global minimum. For ``l0`` it is 0 at the fixed points of the locally competitive algorithm
        with the hard threshold.
        """
        return (code - self.shrink(code - self.gradient(code))).abs().flatten(1).amax(1)

    def lambda_max(self) -> PerImage:
        """Return the smallest lambda at which each image's code is all zeros."""
        drive = self.drive()
        return (drive if self.nonnegative else drive.abs()).flatten(1).amax(1).clamp_min(0)
