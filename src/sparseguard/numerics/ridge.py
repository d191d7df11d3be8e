"""Ridge regression in closed form: the penalty chosen on validation images, or by leaving each sample out once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.core.out_of_core import (
    column_chunks,
    inner_products,
    mean_and_std,
    moments,
    row_chunks,
    tap_limit,
)

PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-16, 9))
"""Penalties `fit_ridge` tries, relative to the mean feature variance times the number of training images."""

LEAVE_ONE_OUT_PENALTIES = tuple(10.0**exponent for exponent in range(-10, 3))
"""Penalties `fit_ridge_leave_one_out` tries, relative to the mean squared singular value of the centered features."""


class RidgeMap(ABC):
    """An affine map from features to pixels.

    Args:
        feature_mean: of the images it was fitted on.
        pixel_mean: of these images.
    """

    def __init__(self, feature_mean: Float[Tensor, " d"], pixel_mean: Float[Tensor, " p"]) -> None:
        self.feature_mean, self.pixel_mean = feature_mean, pixel_mean

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        """Return pixels in float64, not clipped."""
        predictions = [self._deviation(features[chunk]) + self.pixel_mean for chunk in row_chunks(features)]
        return torch.cat(predictions) if predictions else self.pixel_mean.new_zeros(0, len(self.pixel_mean))

    @property
    @abstractmethod
    def size(self) -> float:
        """The Frobenius norm of the weights."""

    @abstractmethod
    def _deviation(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        """Return how far the pixels are from their mean."""


@final
class ExplicitMap(RidgeMap):
    """An affine map with explicit weights ``(d, p)``."""

    def __init__(
        self, feature_mean: Float[Tensor, " d"], pixel_mean: Float[Tensor, " p"], weights: Float[Tensor, "d p"]
    ) -> None:
        super().__init__(feature_mean, pixel_mean)
        self.weights = weights

    @property
    def size(self) -> float:
        """The Frobenius norm of the weights."""
        return float(torch.linalg.vector_norm(self.weights))

    def _deviation(self, features: Tensor) -> Tensor:
        return (features.double() - self.feature_mean) @ self.weights


@final
class KernelMap(RidgeMap):
    """An affine map by inner products with the images it was fitted on, where weights would be too large.

    Args:
        rows: their features ``(m, d)``.
        coefficients: ``(m, p)``; the weights are the centered rows, transposed, times these.
    """

    def __init__(
        self,
        feature_mean: Float[Tensor, " d"],
        pixel_mean: Float[Tensor, " p"],
        rows: Float[Tensor, "m d"],
        coefficients: Float[Tensor, "m p"],
    ) -> None:
        super().__init__(feature_mean, pixel_mean)
        self.rows, self.coefficients = rows, coefficients

    @property
    def size(self) -> float:
        """The Frobenius norm of the weights."""
        gram = inner_products(self.rows, self.rows, self.feature_mean)
        return math.sqrt(max(0.0, float((self.coefficients * (gram @ self.coefficients)).sum())))

    def _deviation(self, features: Tensor) -> Tensor:
        return inner_products(features, self.rows, self.feature_mean) @ self.coefficients

    def explicit(self) -> ExplicitMap:
        """Return the map with its weights."""
        weights = [
            (self.rows[:, chunk].double() - self.feature_mean[chunk]).T @ self.coefficients
            for chunk in column_chunks(self.rows)
        ]
        return ExplicitMap(self.feature_mean, self.pixel_mean, torch.cat(weights))


@dataclass(frozen=True, kw_only=True, eq=False)
class RidgeFit:
    """A fitted map.

    Args:
        mapping: from features to pixels.
        penalty: the relative penalty chosen.
        psnr: mean PSNR on the validation images, in dB.
    """

    mapping: RidgeMap
    penalty: float
    psnr: float


def fit_ridge(
    features: Float[Tensor, "n d"],
    pixels: Float[Tensor, "n p"],
    val_features: Float[Tensor, "m d"],
    val_pixels: Float[Tensor, "m p"],
    bounded: bool = True,
) -> RidgeFit:
    r"""Fit :math:`\min_A \|X - Z A\|^2 + \alpha\|A\|^2` on centered data, alpha chosen on the validation images.

    One symmetric eigendecomposition serves all penalties: of :math:`Z^T Z` (d x d) or, where there are fewer images
    than features, of :math:`Z Z^T` (the dual). In float64, features read in chunks.

    Args:
        features: of the training images.
        pixels: the training images, or other values to be predicted.
        val_features: of the validation images.
        val_pixels: the validation images.
        bounded: whether predictions lie in [0, 1]; they are clipped then before they are scored.
    """
    feature_mean, pixel_mean = mean_and_std(features)[0][0], pixels.mean(0, dtype=torch.float64)
    primal = features.shape[1] <= features.shape[0]
    if primal:
        gram, cross = moments(features, feature_mean, pixels, pixel_mean)
    else:
        gram, cross = inner_products(features, features, feature_mean), pixels.double() - pixel_mean
    unit = float(gram.trace()) / features.shape[1]
    values, vectors = torch.linalg.eigh(gram)
    right = vectors.T @ cross
    centered = val_features.double() - feature_mean if primal else inner_products(val_features, features, feature_mean)
    left = centered @ vectors
    scores = []
    for penalty in PENALTIES:
        scale = values.clamp_min(0) + penalty * unit + torch.finfo(torch.float64).tiny
        guess = (left / scale) @ right + pixel_mean
        error = ((guess.clamp(0, 1) if bounded else guess) - val_pixels).square().mean(1).clamp_min(1e-10)
        scores.append((float(-10 * error.log10().mean()), penalty))
    psnr, penalty = max(scores)
    scale = values.clamp_min(0) + penalty * unit + torch.finfo(torch.float64).tiny
    solution = (vectors / scale) @ right
    if primal:
        return RidgeFit(mapping=ExplicitMap(feature_mean, pixel_mean, solution), penalty=penalty, psnr=psnr)
    kernel = KernelMap(feature_mean, pixel_mean, features, solution)
    fits = features.shape[1] * pixels.shape[1] * solution.element_size() <= tap_limit()
    return RidgeFit(mapping=kernel.explicit() if fits else kernel, penalty=penalty, psnr=psnr)


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap:
    """An affine map from features to any targets, in float64.

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
        """Return the expected targets."""
        return (features.double() - self.features) @ self.weights + self.targets


@torch.no_grad()
def fit_ridge_leave_one_out(features: Float[Tensor, "n d"], targets: Float[Tensor, "n p"]) -> LinearMap:
    r"""Fit :math:`\min_A \|T - F A\|^2 + \alpha \|A\|^2` on centered data, alpha by the leave-one-out error.

    With :math:`F = U \Sigma V^T` and :math:`H = U \Sigma^2 (\Sigma^2 + \alpha)^{-1} U^T + 1/n`, leaving sample i out
    changes its residual to :math:`e_i / (1 - H_{ii})`.

    Source: Allen 1974 (PRESS).
    """
    f, t = features.double(), targets.double()
    feature_mean, target_mean = f.mean(0), t.mean(0)
    u, sigma, vt = torch.linalg.svd(f - feature_mean, full_matrices=False)
    centered = t - target_mean
    right, unit = u.T @ centered, float(sigma.square().mean())
    best = float("inf"), LEAVE_ONE_OUT_PENALTIES[0]
    for penalty in LEAVE_ONE_OUT_PENALTIES:
        shrink = _shrinkage(sigma, penalty * unit)
        leverage = u.square() @ shrink + 1 / len(f)
        left_out = (centered - u @ (shrink.unsqueeze(1) * right)) / (1 - leverage).clamp_min(1e-9).unsqueeze(1)
        best = min(best, (float(left_out.square().mean()), penalty))
    error, penalty = best
    inverse = _shrinkage(sigma, penalty * unit) / sigma.clamp_min(torch.finfo(sigma.dtype).tiny)
    return LinearMap(
        features=feature_mean, weights=vt.T @ (inverse.unsqueeze(1) * right), targets=target_mean, error=error
    )


def _shrinkage(sigma: Tensor, penalty: float) -> Tensor:
    return sigma.square() / (sigma.square() + penalty).clamp_min(torch.finfo(sigma.dtype).tiny)
