"""Losses of class inversion: the distance of a target's answer to a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparseguard.types import Labels

Logits = Float[Tensor, "n classes"]
LossName = Literal["poincare", "cross-entropy", "max-margin"]

XI = 1e-4
"""Distance of the class's point from the border of the Poincaré ball."""
CLAMP = 1e-6
"""Least value of 1 - |u|^2, so that the distance is finite at a one-hot answer."""


def poincare(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    r"""Return the Poincaré distance of each answer to its class.

    .. math:: d(u, v) = \operatorname{arcosh}\left(1 + \frac{2 \|u - v\|^2}{(1 - \|u\|^2)(1 - \|v\|^2)}\right), \qquad
              u = \frac{o}{\|o\|_1}, \quad v = \max(0, y - \xi)

    o are the logits, y the one-hot class, xi = 1e-4. :math:`1 - \|u\|^2` is kept at least 1e-6, so that the distance is
    finite where one logit holds all of the sum; there no gradient reaches u through the denominator. See
    `is_clamped`. Values depend on the number of classes: near 10 for arbitrary answers, less the nearer.

    Args:
        logits: ``(n, classes)``.
        labels: ``(n,)`` class indices.

    Source: L. Struppek et al., "Plug & Play Attacks: Towards Robust and Flexible Model Inversion Attacks", ICML 2022,
    eq. 4. Differs: the clamp.

    Example:
        >>> near, far = poincare(torch.tensor([[9.0, 0.5, 0.5], [0.5, 9.0, 0.5]]), torch.tensor([0, 0]))
        >>> bool(near < far), bool(torch.isfinite(poincare(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))).all())
        (True, True)
    """
    u = _normalized(logits)
    v = (F.one_hot(labels, logits.shape[1]).to(logits) - XI).clamp(0, 1)
    denominator = (1 - u.square().sum(1)).clamp_min(CLAMP) * (1 - v.square().sum(1))
    ratio = 2 * (u - v).square().sum(1) / denominator
    # arcosh(1 + r) without the cancellation of 1 + r, and with a finite gradient at r = 0
    return torch.log1p(ratio + (ratio * (ratio + 2) + torch.finfo(ratio.dtype).tiny).sqrt())


def is_clamped(logits: Logits) -> Float[Tensor, " n"]:
    """Return 1 where the Poincaré loss is at its clamp: one logit holds all of the sum of sizes, else 0."""
    return ((1 - _normalized(logits).square().sum(1)) <= CLAMP).to(logits)


def cross_entropy(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """Return each image's cross-entropy in nats; its gradient vanishes as the confidence goes to 1."""
    return F.cross_entropy(logits, labels, reduction="none")


def max_margin(logits: Logits, labels: Labels) -> Float[Tensor, " n"]:
    """Return the highest other logit minus that of the class; it never saturates.

    Source: X. Yuan et al., "Pseudo Label-Guided Model Inversion Attack via Conditional Generative Adversarial Network",
    AAAI 2023, eq. 6.
    """
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    return others - own


LOSSES: dict[str, Callable[[Logits, Labels], Float[Tensor, " n"]]] = {
    "poincare": poincare,
    "cross-entropy": cross_entropy,
    "max-margin": max_margin,
}


def _normalized(logits: Logits) -> Logits:
    return logits / logits.abs().sum(1, keepdim=True).clamp_min(torch.finfo(logits.dtype).tiny)
