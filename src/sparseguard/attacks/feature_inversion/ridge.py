"""Ridge regression from the raw tap to pixels, in closed form."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sparseguard.attacks.access import Leak
from sparseguard.attacks.base import Attack, AttackContext, observed
from sparseguard.attacks.feature_inversion._query_augmentation import training_queries
from sparseguard.core.config import settings
from sparseguard.core.out_of_core import (
    column_chunks,
    gathered,
    inner_products,
    mean_and_spread,
    moments,
    row_chunks,
    taps_limit,
)
from sparseguard.types import AttackResult, Goal, Knowledge

PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-16, 9))
"""Penalties tried, relative to the mean feature variance times the number of training images."""

MAX_SYSTEM = 8192
"""The largest side of the system solved: features, or training images where these are fewer."""


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
        made = [self._deviation(features[some]) + self.pixel_mean for some in row_chunks(features)]
        return torch.cat(made) if made else self.pixel_mean.new_zeros(0, len(self.pixel_mean))

    @property
    @abstractmethod
    def size(self) -> float:
        """The Frobenius norm of the weights."""

    @abstractmethod
    def _deviation(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        """Return how far the pixels are from their mean."""


@final
class ExplicitMap(RidgeMap):
    """A map whose weights ``(d, p)`` are there."""

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
    """The same map by inner products with the images it was fitted on, where weights would be too large.

    Args:
        rows: their features ``(m, d)``.
        coefficients: ``(m, p)``; the weights are the centred rows, transposed, times these.
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
            (self.rows[:, some].double() - self.feature_mean[some]).T @ self.coefficients
            for some in column_chunks(self.rows)
        ]
        return ExplicitMap(self.feature_mean, self.pixel_mean, torch.cat(weights))


def fit_ridge(
    features: Float[Tensor, "n d"],
    pixels: Float[Tensor, "n p"],
    val_features: Float[Tensor, "m d"],
    val_pixels: Float[Tensor, "m p"],
    bounded: bool = True,
) -> tuple[RidgeMap, float, float]:
    r"""Fit :math:`\min_A \|X - Z A\|^2 + \alpha\|A\|^2` on centred data, alpha chosen on the validation images.

    One symmetric eigendecomposition serves all penalties: of :math:`Z^T Z` (d x d) or, where there are fewer images
    than features, of :math:`Z Z^T` (the dual). In float64, features read in chunks.

    Args:
        features: of the training images.
        pixels: the training images, or what else is to be predicted.
        val_features: of the validation images.
        val_pixels: the validation images.
        bounded: whether what is predicted lies in [0, 1]; it is clipped then before it is scored.

    Returns:
        The map, the relative penalty chosen, and its mean PSNR on the validation images in dB.
    """
    feature_mean, pixel_mean = mean_and_spread(features)[0][0], pixels.mean(0, dtype=torch.float64)
    primal = features.shape[1] <= features.shape[0]
    if primal:
        gram, cross = moments(features, feature_mean, pixels, pixel_mean)
    else:
        gram, cross = inner_products(features, features, feature_mean), pixels.double() - pixel_mean
    unit = float(gram.trace()) / features.shape[1]
    values, vectors = torch.linalg.eigh(gram)
    right = vectors.T @ cross
    seen = val_features.double() - feature_mean if primal else inner_products(val_features, features, feature_mean)
    left = seen @ vectors
    scored = []
    for penalty in PENALTIES:
        scale = values.clamp_min(0) + penalty * unit + torch.finfo(torch.float64).tiny
        guess = (left / scale) @ right + pixel_mean
        error = ((guess.clamp(0, 1) if bounded else guess) - val_pixels).square().mean(1).clamp_min(1e-10)
        scored.append((float(-10 * error.log10().mean()), penalty))
    score, penalty = max(scored)
    scale = values.clamp_min(0) + penalty * unit + torch.finfo(torch.float64).tiny
    solution = (vectors / scale) @ right
    if primal:
        return ExplicitMap(feature_mean, pixel_mean, solution), penalty, score
    kernel = KernelMap(feature_mean, pixel_mean, features, solution)
    fits = features.shape[1] * pixels.shape[1] * solution.element_size() <= taps_limit()
    return kernel.explicit() if fits else kernel, penalty, score


@settings
class Ridge(Attack):
    """Invert the tap by an affine map, learned from the attacker's images and what the target released for them.

    Args:
        copies: versions of each attacker image that are queried (plain, mirrored, shifted by a pixel ...). Where
            images times copies times features is large, the system is still bounded: as many copies are used as
            keep the smaller side below 8,192, at least one.
        mixes: further versions, made of the halves of two images.

    Source: closed form; see docs/attacks.md for why it comes first.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "ridge regression from the raw tap to pixels, closed form"
    source: ClassVar[str] = "closed form"
    knowledge: ClassVar[Knowledge] = Knowledge.BLACK_BOX
    copies: Annotated[int, Field(ge=1, le=18)] = 8
    mixes: Annotated[int, Field(ge=0, le=8)] = 0

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Fit on attacker-train, choose the penalty on attacker-val, apply."""
        mapping, notes = self.fit(leak, context)
        shape = context.auxiliary.train.shape
        reconstructions = {
            part: mapping(features).float().clamp(0, 1).view(-1, *shape) for part, features in observed(goal).items()
        }
        return AttackResult(reconstructions=reconstructions, parameter_change=mapping.size, notes=notes)

    def fit(self, leak: Leak, context: AttackContext) -> tuple[RidgeMap, dict[str, float]]:
        """Query the leak and fit the map."""
        auxiliary = context.auxiliary
        features: list[Tensor] = []
        pixels: list[Tensor] = []
        for images in training_queries(auxiliary.train, self.copies, self.mixes):
            seen = leak.observe(images).features.flatten(1)
            if features and min(seen.shape[1], len(seen) * (len(features) + 1)) > MAX_SYSTEM:
                break
            features.append(seen)
            pixels.append(images.flatten(1))
        val_features = leak.observe(auxiliary.val).features.flatten(1)
        known = torch.cat(pixels)
        mapping, penalty, score = fit_ridge(
            gathered(features, len(known), taps_limit()), known, val_features, auxiliary.val.images.flatten(1)
        )
        return mapping, {"penalty": penalty, "auxiliary_val_psnr": score, "copies": float(len(features))}
