"""A decoder for taps that forget mean and contrast: the standardized image first, then what was removed."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sparseguard.attacks.access import Leak
from sparseguard.attacks.base import AttackContext, released
from sparseguard.attacks.feature_inversion._decoder_base import CURVE, TrainedDecoder
from sparseguard.attacks.feature_inversion._decoder_networks import ImageShape, ResidualDecoder, TapShape
from sparseguard.attacks.feature_inversion.ridge import fit_ridge
from sparseguard.core.config import settings
from sparseguard.sparse import standardize
from sparseguard.types import AttackResult, Goal


@settings
class TwoStage(TrainedDecoder):
    r"""Predict :math:`u = (x - m) / s`, then its mean m and contrast s, and answer :math:`m + s u`, clipped.

    Sparse layers standardize their input, so m and s do not pass. But an image lies in [0, 1], and most touch both
    ends: then :math:`s = 1 / (\max u - \min u)` and :math:`m = -s \min u`. These two, the extremes themselves and the
    tap's features enter a ridge regression to m and s.

    Args:
        width: channels of the decoder at full size.
        depth: convolutions at full size.

    Source: ours (design, section 4).
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "decoder of the standardized image, then mean and contrast from features and pixel range"
    source: ClassVar[str] = "ours"
    width: Annotated[int, Field(ge=1)] = 16
    depth: Annotated[int, Field(ge=1)] = 1

    def network(self, tap: TapShape, shape: ImageShape) -> nn.Module:
        """Return the decoder of the first stage."""
        return ResidualDecoder(tap, shape, self.width, self.depth)

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Train the first stage, fit the second, apply both."""
        auxiliary = context.auxiliary
        with torch.random.fork_rng():
            torch.manual_seed(context.seed)
            first = self.learn(leak, context, _standardized, False)
            seen, val_seen = leak.observe(auxiliary.train).features, leak.observe(auxiliary.val).features
            second, penalty, _ = fit_ridge(
                clues(seen, first(seen)),
                _statistics(auxiliary.train.images),
                clues(val_seen, first(val_seen)),
                _statistics(auxiliary.val.images),
            )
        reconstructions = {}
        for part, features in released(goal).items():
            made = first(features)
            found = second(clues(features, made)).float()[..., None, None]
            reconstructions[part] = (found[:, :1] + found[:, 1:] * made).clamp(0, 1)
        return AttackResult(
            reconstructions=reconstructions,
            parameter_change=first.training.change,
            notes={**first.notes, "statistics_penalty": penalty},
            curves={CURVE: first.training.curve},
        )


def clues(features: Float[Tensor, "n *tap"], made: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """Return what tells mean and contrast: the features, the extremes of u, and the answer of a full pixel range."""
    flat = made.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    contrast = 1 / (high - low).clamp_min(1e-3)
    return torch.cat([features.flatten(1), low, high, contrast, -low * contrast], 1)


def _standardized(images: Tensor) -> tuple[Tensor, Tensor]:
    return standardize(images), images.flatten(1).std(1, correction=0).view(-1, 1, 1, 1)


def _statistics(images: Tensor) -> Float[Tensor, "n 2"]:
    flat = images.flatten(1)
    return torch.stack([flat.mean(1), flat.std(1, correction=0)], 1)
