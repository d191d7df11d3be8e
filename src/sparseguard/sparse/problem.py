r"""The sparse-coding problem (paper, Eq. 1) and the conditions its solution meets.

.. math:: \min_{R \ge 0} \; E(R) = \tfrac12 \|X - R \circledast W\|_2^2 + \lambda \sum R

These functions are the yardstick for every solver: none of them depends on how a code was found.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.sparse.dictionary import ConvDictionary

Images = Float[Tensor, "n c h w"]
Codes = Float[Tensor, "n f p q"]
PerImage = Float[Tensor, " n"]


def energy(code: Codes, images: Images, dictionary: ConvDictionary, lambd: float) -> PerImage:
    """Return E of each image: half the squared residual plus ``lambd`` times the code's sum of magnitudes."""
    residual = images - dictionary.synthesis(code)
    return residual.square().flatten(1).sum(1) / 2 + lambd * code.abs().flatten(1).sum(1)


def gradient(code: Codes, images: Images, dictionary: ConvDictionary) -> Codes:
    r"""Return the gradient of the quadratic term, :math:`(R \circledast W - X) * W`."""
    return dictionary.analysis(dictionary.synthesis(code) - images)


def kkt_residual(code: Codes, images: Images, dictionary: ConvDictionary, lambd: float) -> PerImage:
    r"""Return how far each code is from optimal: :math:`\max |R - \mathrm{relu}(R - \nabla - \lambda)|`.

    It is 0 exactly at a solution of the problem with :math:`R \ge 0`, which is convex, so that a zero proves a global
    minimum.
    """
    step = torch.relu(code - gradient(code, images, dictionary) - lambd)
    return (code - step).abs().flatten(1).amax(1)


def largest_eigenvalue(
    dictionary: ConvDictionary, start: Float[Tensor, "1 f p q"], iterations: int
) -> tuple[Float[Tensor, ""], Float[Tensor, "1 f p q"]]:
    """Estimate the largest eigenvalue of the Gram operator (analysis of synthesis) by power iteration.

    Returns:
        The Rayleigh quotient, which approaches the eigenvalue from below, and the unit vector it belongs to.
    """
    vector = start
    quotient = torch.ones((), dtype=start.dtype, device=start.device)
    for _ in range(iterations):
        image = dictionary.analysis(dictionary.synthesis(vector))
        quotient = (vector * image).sum()
        vector = image / torch.linalg.vector_norm(image).clamp_min(torch.finfo(image.dtype).tiny)
    return quotient, vector
