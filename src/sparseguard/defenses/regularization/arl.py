"""ARL, adversarial representation learning: train the target against a decoder."""

from __future__ import annotations

from typing import Annotated, ClassVar, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from sparseguard.core.config import settings
from sparseguard.core.staged_model import Blueprint, Shape, StagedModel
from sparseguard.defenses.base import AuxiliaryNetwork, Defense, State
from sparseguard.types import BatchContext

RATE = 1e-3
SMALL = 1e-6


@settings
class AdversarialRepresentation(Defense):
    r"""Train the target against a decoder that learns to reconstruct images from the features at the tap.

    .. math:: L = \mathrm{CE} - w \min\left(1, \frac{\|D(z) - x\|^2}{\|\bar x - x\|^2}\right), \quad
        D = \arg\min_D \|D(z) - x\|^2

    The decoder D (dense, ReLU, dense, sigmoid) takes Adam steps of its own on each batch, on detached features;
    then the target takes its step, which does not change D. D's error is relative to that of the batch's mean
    image, and clamped there: the target gains nothing by making D worse than the mean image.

    Batch normalization without learned scale standardizes the tap, by running statistics after training. With an
    unbounded tap the target could defeat the decoder by scaling its features, which stops no later attacker.
    Standardization can be undone and hides nothing by itself.

    Args:
        weight: w, in nats at the error of the mean image.
        width: hidden units of the decoder.
        decoder_steps: steps of the decoder on each batch.

    Source: min-max training against a decoder as a baseline in the authors' code of CEM (Xia et al., CVPR 2025; there
    called ``gan_adv``); Li et al. (CVPR 2022), "ResSFL", train against an inversion model in the same way.

    Differs: the published decoders are convolutional and some measure structural similarity; here it is dense, with
    the squared error, which fits any tap. Normalization and clamping of the error, and the standardized tap, are ours.

    Limits: an adversary in training is weaker than one trained on the finished target, and other attackers find what
    it misses. Published results show that stronger decoders undo such defenses. The features have no noise: a direction
    of little variance escapes the decoder, but a linear attack reads it exactly.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "min-max training against a decoder that learns to reconstruct from the tap"
    source: ClassVar[str] = "as the baseline gan_adv of CEM's authors (CVPR 2025)"
    acts_at_tap: ClassVar[bool] = True
    weight: Annotated[float, Field(ge=0)] = 3.0
    width: Annotated[int, Field(ge=1)] = 512
    decoder_steps: Annotated[int, Field(ge=1)] = 3

    def find_unaccounted_access(self) -> str:
        """Return that the decoder learns from private images."""
        return "its decoder learns from private images, and batch normalization couples the images of a batch"

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Insert the standardization after the tap."""
        return blueprint.insert_after_tap("standardized", _build_standardization)

    def build_auxiliary_network(self, model: StagedModel, tap_stage: str, images: Tensor) -> AuxiliaryNetwork:
        """Return a decoder from the tap to the images' pixels."""
        with torch.no_grad():
            features = model.forward_to(images, tap_stage)
        return Adversary(features[0].numel(), images[0].numel(), self.width, self.decoder_steps)

    def penalty(self, batch: BatchContext) -> Tensor:
        """Return minus the weighted error of the decoder; its weights get no gradient."""
        features, pixels = cast(Adversary, batch.auxiliary_network).select_pairs(batch)
        decoder = cast(Adversary, batch.auxiliary_network).decoder
        weights = {name: value.detach() for name, value in decoder.named_parameters()}
        error = F.mse_loss(functional_call(decoder, weights, (features,)), pixels)
        limit = pixels.var(0, correction=0).mean().clamp_min(SMALL)
        return -self.weight * (error / limit).clamp(max=1)

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Check that the stage exists."""
        return None if "standardized" in model.stages else "the model has no standardized tap"


class Adversary(AuxiliaryNetwork):
    """A decoder from features to pixels, and its optimizer.

    Args:
        features: values of an image at the tap.
        pixels: values of an image.
        width: hidden units.
        steps: on each batch.
    """

    def __init__(self, features: int, pixels: int, width: int, steps: int) -> None:
        super().__init__()
        self.decoder = nn.Sequential(
            nn.Flatten(), nn.Linear(features, width), nn.ReLU(), nn.Linear(width, pixels), nn.Sigmoid()
        )
        self.optimizer = torch.optim.Adam(self.decoder.parameters(), lr=RATE)
        self.steps = steps

    def select_pairs(self, batch: BatchContext) -> tuple[Tensor, Tensor]:
        """Return features at the tap of the batch's own images, and their pixels ``(n, pixels)``."""
        return batch.outputs[batch.tap_stage][batch.own], batch.images[batch.own].flatten(1)

    def learn(self, batch: BatchContext) -> None:
        """Take the decoder's steps on the batch."""
        features, pixels = self.select_pairs(batch)
        for _ in range(self.steps):
            self.optimizer.zero_grad(set_to_none=True)
            F.mse_loss(self.decoder(features.detach()), pixels.detach()).backward()
            self.optimizer.step()


def _build_standardization(shape: Shape) -> nn.Module:
    return nn.BatchNorm1d(shape[0], affine=False) if len(shape) < 3 else nn.BatchNorm2d(shape[0], affine=False)
