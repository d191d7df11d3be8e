"""Ridge regression from the raw tap to pixels, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sparseguard.attacks.base import Attack, AttackContext, observed
from sparseguard.attacks.queries import training_queries
from sparseguard.leak import Leak
from sparseguard.settings import settings
from sparseguard.types import AttackResult, Goal, Knowledge

PENALTIES = tuple(10.0 ** (exponent / 2) for exponent in range(-16, 9))
"""Penalties tried, relative to the mean feature variance times the number of training images."""

MAX_SYSTEM = 8192
"""The largest side of the system solved: features, or training images where these are fewer."""


@dataclass(frozen=True, eq=False)
class RidgeMap:
    """An affine map from features to pixels."""

    feature_mean: Float[Tensor, " d"]
    weights: Float[Tensor, "d p"]
    pixel_mean: Float[Tensor, " p"]

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        """Return pixels, not clipped."""
        return (features.double() - self.feature_mean) @ self.weights + self.pixel_mean


def fit_ridge(
    features: Float[Tensor, "n d"],
    pixels: Float[Tensor, "n p"],
    val_features: Float[Tensor, "m d"],
    val_pixels: Float[Tensor, "m p"],
    bounded: bool = True,
) -> tuple[RidgeMap, float, float]:
    r"""Fit :math:`\min_A \|X - Z A\|^2 + \alpha\|A\|^2` on centred data, alpha chosen on the validation images.

    One symmetric eigendecomposition serves all penalties: of :math:`Z^T Z` (d x d) or, where there are fewer images
    than features, of :math:`Z Z^T` (the dual). In float64.

    Args:
        features: of the training images.
        pixels: the training images, or what else is to be predicted.
        val_features: of the validation images.
        val_pixels: the validation images.
        bounded: whether what is predicted lies in [0, 1]; it is clipped then before it is scored.

    Returns:
        The map, the relative penalty chosen, and its mean PSNR on the validation images in dB.
    """
    feature_mean, pixel_mean = features.double().mean(0), pixels.double().mean(0)
    z, x = features.double() - feature_mean, pixels.double() - pixel_mean
    unit = float(z.square().sum() / z.shape[1])
    primal = z.shape[1] <= z.shape[0]
    values, vectors = torch.linalg.eigh(z.T @ z if primal else z @ z.T)
    right = vectors.T @ (z.T @ x if primal else x)
    left = vectors if primal else z.T @ vectors
    val_left = (val_features.double() - feature_mean) @ left
    scored = []
    for penalty in PENALTIES:
        scale = values.clamp_min(0) + penalty * unit + torch.finfo(torch.float64).tiny
        guess = (val_left / scale) @ right + pixel_mean
        error = ((guess.clamp(0, 1) if bounded else guess) - val_pixels).square().mean(1).clamp_min(1e-10)
        scored.append((float(-10 * error.log10().mean()), penalty))
    score, penalty = max(scored)
    scale = values.clamp_min(0) + penalty * unit + torch.finfo(torch.float64).tiny
    return RidgeMap(feature_mean, (left / scale) @ right, pixel_mean), penalty, score


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
    knowledge: ClassVar[Knowledge] = Knowledge.OUTPUTS
    copies: Annotated[int, Field(ge=1, le=18)] = 8
    mixes: Annotated[int, Field(ge=0, le=8)] = 0

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Fit on attacker-train, choose the penalty on attacker-val, apply."""
        mapping, notes = self.fit(leak, context)
        shape = context.public.train.shape
        reconstructions = {
            part: mapping(features).float().clamp(0, 1).view(-1, *shape) for part, features in observed(goal).items()
        }
        size = float(torch.linalg.vector_norm(mapping.weights))
        return AttackResult(reconstructions=reconstructions, parameter_change=size, notes=notes)

    def fit(self, leak: Leak, context: AttackContext) -> tuple[RidgeMap, dict[str, float]]:
        """Query the leak and fit the map."""
        public = context.public
        features: list[Tensor] = []
        pixels: list[Tensor] = []
        for images in training_queries(public.train, self.copies, self.mixes):
            seen = leak.observe(images).features.flatten(1)
            if features and min(seen.shape[1], len(seen) * (len(features) + 1)) > MAX_SYSTEM:
                break
            features.append(seen)
            pixels.append(images.flatten(1))
        val_features = leak.observe(public.val).features.flatten(1)
        mapping, penalty, score = fit_ridge(
            torch.cat(features), torch.cat(pixels), val_features, public.val.images.flatten(1)
        )
        return mapping, {"penalty": penalty, "attacker_val_psnr": score, "copies": float(len(features))}
