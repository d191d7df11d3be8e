"""The network of the code decoder: sparse codes from features, and an image corrected by them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.attacks.feature_inversion._decoders.networks import Grid, block, zero_init
from sparseguard.numerics.supervised import Batch
from sparseguard.sparse import Dictionary
from sparseguard.types import Images

Codes = Float[Tensor, "n f p q"]
SUPPORT_WEIGHT, AMPLITUDE_WEIGHT = 0.02, 0.002
"""Weights of the losses of codes beside that of the image: all three are of one size early in training."""


class CodeNetwork(nn.Module):
    """Network from features, a guess of the image and one of its codes to codes, and to an image corrected by them.

    Args:
        tap: shape of one observation.
        channels: of the images.
        code: shape of one image's codes.
        width: channels of the network.
        dictionary: synthesizes images from codes; not learned.
    """

    def __init__(
        self, tap: tuple[int, ...], channels: int, code: tuple[int, ...], width: int, dictionary: Dictionary
    ) -> None:
        super().__init__()
        features, height, breadth = code
        self.dictionary = dictionary
        self.coarse = (-(-height // 4), -(-breadth // 4))
        self.spread = Grid(tap, 2 * width, self.coarse)
        self.trunk = nn.Sequential(block(2 * width + features + channels, width), block(width, width))
        self.support = nn.Conv2d(width, features, 3, padding=1)
        self.sharpness = nn.Parameter(torch.ones(()))
        self.amplitude = zero_init(nn.Conv2d(width, features, 3, padding=1))
        self.refine = nn.Sequential(
            block(width + 2 * channels, width), zero_init(nn.Conv2d(width, channels, 3, padding=1))
        )

    def forward(self, features: Tensor, guess: Images, code_guess: Codes) -> tuple[Codes, Codes, Images]:
        """Return the logits of the support, the amplitudes (>= 0), and the image (not clipped)."""
        size = code_guess.shape[2:]
        grid = F.interpolate(self.spread(features), size=size, mode="bilinear")
        small = F.interpolate(guess, size=size) if guess.shape[2:] != size else guess
        trunk = self.trunk(torch.cat([grid, code_guess, small], 1))
        logits = self.support(trunk) + self.sharpness * code_guess
        amplitudes = torch.relu(code_guess + self.amplitude(trunk))
        synthesis = self.dictionary.synthesis(torch.sigmoid(logits) * amplitudes)
        wide = F.interpolate(trunk, size=guess.shape[2:]) if guess.shape[2:] != size else trunk
        image: Tensor = guess + self.refine(torch.cat([wide, guess, synthesis], 1))
        return logits, amplitudes, image


def code_loss(network: CodeNetwork, batch: Batch) -> Tensor:
    """Return the loss of a batch: squared error of images, plus cross-entropy and squared error of codes."""
    *rows, codes, images = batch
    logits, amplitudes, predictions = network(*rows)
    active = codes > 0
    support = F.binary_cross_entropy_with_logits(logits, active.float())
    amplitude: Tensor = ((amplitudes - codes).square() * active).sum() / active.sum().clamp_min(1)
    image: Tensor = F.mse_loss(predictions, images)
    return image + SUPPORT_WEIGHT * support + AMPLITUDE_WEIGHT * amplitude


def threshold_codes(logits: Codes, amplitudes: Codes) -> Codes:
    """Return the codes: amplitudes on the support, 0 elsewhere."""
    return torch.where(logits > 0, amplitudes, 0.0)
