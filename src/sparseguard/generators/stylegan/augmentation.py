"""Random, differentiable augmentation of a discriminator's images, for training on few of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SHIFT, ZOOM, TURN = 0.125, 0.2, math.radians(10)
"""Standard deviations: of a shift as a fraction of the side, of the logarithm of the size, of the angle."""
BRIGHTNESS, CONTRAST = 0.2, 0.5
"""Standard deviations: of a constant added to all pixels, and of the logarithm of the contrast."""
TARGET = 0.6
"""Mean sign of real images' logits that the probability is adapted to."""
IMAGES_TO_FULL = 50_000
"""Images after which the probability has risen from 0 to 1, at the earliest."""
MOST = 0.8
"""Highest probability; below it the augmentation does not leak into the generator's images."""


def augment_images(
    images: Float[Tensor, "n c h w"], probability: Float[Tensor, ""], *, flips: bool
) -> Float[Tensor, "n c h w"]:
    """Augment each image by each transform, independently, with a probability.

    Transforms: mirror (where that keeps the class), shift, resize, rotate, change brightness and contrast, cut out a
    square of half the side. Pixels from outside are reflected from inside. Draws from torch's global generator.

    Args:
        images: in [0, 1].
        probability: in [0, 1], a tensor on the device.
        flips: whether mirror images are allowed.

    Source: T. Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020. Differs:
    fewer transforms, no filters against aliasing.
    """
    count, _, height, width = images.shape

    def choose(number: int = 1) -> Tensor:
        return (torch.rand(count, number, device=images.device) < probability).to(images)

    def normal(number: int = 1) -> Tensor:
        return torch.randn(count, number, device=images.device) * choose(number)

    shift, zoom, angle = 2 * SHIFT * normal(2), (ZOOM * normal()).exp(), TURN * normal()
    mirror = 1 - 2 * choose() * (torch.rand(count, 1, device=images.device) < 0.5) if flips else torch.ones_like(zoom)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = [torch.cat([cos * mirror, -sin, shift[:, :1]], 1), torch.cat([sin * mirror, cos, shift[:, 1:]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    middle = moved.mean((1, 2, 3), keepdim=True)
    contrast = (CONTRAST * normal()).exp().view(-1, 1, 1, 1)
    toned = (moved - middle) * contrast + middle + (BRIGHTNESS * normal()).view(-1, 1, 1, 1)
    return toned * cutout_mask(count, height, width, choose(), images)


class AugmentationProbability:
    """Probability of augmentation, adapted to how sure the discriminator is of real images.

    It rises while the mean sign of the logits of real images is above `TARGET`, and falls below.

    Args:
        device: where it is kept.
    """

    def __init__(self, device: torch.device) -> None:
        self.probability = torch.zeros((), device=device)

    @torch.no_grad()
    def update(self, of_real: Float[Tensor, " n"]) -> None:
        """Adapt the probability to the logits of one batch."""
        direction = torch.sign(of_real.sign().mean() - TARGET)
        self.probability = (self.probability + direction * len(of_real) / IMAGES_TO_FULL).clamp(0, MOST)


def cutout_mask(count: int, height: int, width: int, chosen: Tensor, like: Tensor) -> Tensor:
    """Return masks ``(n, 1, h, w)``: 0 in a square of half the side around a random point, for the chosen images."""
    center = torch.rand(count, 2, device=like.device)
    down = torch.linspace(0, 1, height, device=like.device).view(1, 1, -1, 1)
    right = torch.linspace(0, 1, width, device=like.device).view(1, 1, 1, -1)
    outside = ((down - center[:, 0].view(-1, 1, 1, 1)).abs() > 0.25) | (
        (right - center[:, 1].view(-1, 1, 1, 1)).abs() > 0.25
    )
    return torch.where(chosen.view(-1, 1, 1, 1) > 0, outside.to(like), torch.ones_like(like[:, :1]))
