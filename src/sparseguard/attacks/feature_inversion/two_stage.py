"""A decoder for taps that lose mean and contrast: first the standardized image, then these two."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import AttackContext, require_features
from sparseguard.attacks.feature_inversion._decoders.base import CURVE, TrainedDecoder
from sparseguard.attacks.feature_inversion._decoders.networks import ImageShape, ResidualDecoder, TapShape
from sparseguard.attacks.feature_inversion._decoders.training import psnr_curve
from sparseguard.core.config import Count, settings
from sparseguard.numerics.ridge import fit_ridge
from sparseguard.sparse import standardize
from sparseguard.types import AttackInputs, AttackResult


@settings
class TwoStage(TrainedDecoder):
    r"""Predict :math:`u = (x - m) / s`, then its mean m and contrast s, and answer :math:`m + s u`, clipped.

    Sparse layers standardize their input, so m and s do not pass. But an image lies in [0, 1], and most touch both
    ends: then :math:`s = 1 / (\max u - \min u)` and :math:`m = -s \min u`. These two, the extremes themselves and the
    tap's features enter a ridge regression to m and s.

    Args:
        width: channels of the decoder at full size.
        depth: convolutions at full size.

    Source: ours.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "decoder of the standardized image, then mean and contrast from features and pixel range"
    source: ClassVar[str] = "ours"
    width: Count = 16
    depth: Count = 1

    def network(self, tap: TapShape, shape: ImageShape) -> nn.Module:
        """Return the decoder of the first stage."""
        return ResidualDecoder(tap, shape, self.width, self.depth)

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:
        """Train the first stage, fit the second, apply both."""
        auxiliary = context.auxiliary
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            first = self.learn(access, context, _standardize, False)
            features, val_features = access.observe(auxiliary.train).features, access.observe(auxiliary.val).features
            second = fit_ridge(
                statistics_inputs(features, first(features)),
                _statistics(auxiliary.train.images),
                statistics_inputs(val_features, first(val_features)),
                _statistics(auxiliary.val.images),
            )
        reconstructions = {}
        for split, features in require_features(inputs).items():
            standardized = first(features)
            statistics = second.mapping(statistics_inputs(features, standardized)).float()[..., None, None]
            reconstructions[split] = (statistics[:, :1] + statistics[:, 1:] * standardized).clamp(0, 1)
        return AttackResult(
            reconstructions=reconstructions,
            parameter_change=first.training.change,
            diagnostics={**first.diagnostics, "statistics_penalty": second.penalty},
            curves={CURVE: psnr_curve(first.training)},
        )


def statistics_inputs(
    features: Float[Tensor, "n *tap"], standardized: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n d"]:
    """Return predictors of mean and contrast: features, extremes of u, and the values for a full pixel range."""
    flat = standardized.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    contrast = 1 / (high - low).clamp_min(1e-3)
    return torch.cat([features.flatten(1), low, high, contrast, -low * contrast], 1)


def _standardize(images: Tensor) -> tuple[Tensor, Tensor]:
    return standardize(images), images.flatten(1).std(1, correction=0).view(-1, 1, 1, 1)


def _statistics(images: Tensor) -> Float[Tensor, "n 2"]:
    flat = images.flatten(1)
    return torch.stack([flat.mean(1), flat.std(1, correction=0)], 1)
