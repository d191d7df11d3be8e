"""Ridge regression whose penalty is chosen by leaving each sample out once, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

PENALTIES = tuple(10.0**exponent for exponent in range(-10, 3))
"""Penalties tried, relative to the mean squared singular value of the centred features."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap:
    """An affine map, in float64.

    Args:
        features: the mean feature ``(d,)``.
        weights: ``(d, p)``.
        targets: the mean target ``(p,)``.
        error: its leave-one-out mean squared error.
    """

    features: Float[Tensor, " d"]
    weights: Float[Tensor, "d p"]
    targets: Float[Tensor, " p"]
    error: float

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        """Return what is expected of the targets."""
        return (features.double() - self.features) @ self.weights + self.targets


@torch.no_grad()
def fit_linear(features: Float[Tensor, "n d"], targets: Float[Tensor, "n p"]) -> LinearMap:
    r"""Fit :math:`\min_A \|T - F A\|^2 + \alpha \|A\|^2` on centred data, alpha by the leave-one-out error.

    With :math:`F = U \Sigma V^T` and :math:`H = U \Sigma^2 (\Sigma^2 + \alpha)^{-1} U^T + 1/n`, leaving sample i out
    changes its residual to :math:`e_i / (1 - H_{ii})`.

    Source: Allen 1974 (PRESS).
    """
    f, t = features.double(), targets.double()
    feature_mean, target_mean = f.mean(0), t.mean(0)
    u, sigma, vt = torch.linalg.svd(f - feature_mean, full_matrices=False)
    centred = t - target_mean
    right, unit = u.T @ centred, float(sigma.square().mean())
    best = float("inf"), PENALTIES[0]
    for penalty in PENALTIES:
        shrink = _shrinkage(sigma, penalty * unit)
        leverage = u.square() @ shrink + 1 / len(f)
        left_out = (centred - u @ (shrink.unsqueeze(1) * right)) / (1 - leverage).clamp_min(1e-9).unsqueeze(1)
        best = min(best, (float(left_out.square().mean()), penalty))
    error, penalty = best
    inverse = _shrinkage(sigma, penalty * unit) / sigma.clamp_min(torch.finfo(sigma.dtype).tiny)
    return LinearMap(
        features=feature_mean, weights=vt.T @ (inverse.unsqueeze(1) * right), targets=target_mean, error=error
    )


def _shrinkage(sigma: Tensor, penalty: float) -> Tensor:
    return sigma.square() / (sigma.square() + penalty).clamp_min(torch.finfo(sigma.dtype).tiny)
