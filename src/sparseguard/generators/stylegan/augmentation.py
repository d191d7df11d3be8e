"""Random, differentiable changes of images that a discriminator is shown, so that few images last longer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SHIFT, ZOOM, TURN = 0.125, 0.2, math.radians(10)
"""Standard deviations: of a shift as a share of the side, of the logarithm of the size, of the angle."""
BRIGHTNESS, CONTRAST = 0.2, 0.5
"""Standard deviations: of what is added to all pixels, and of the logarithm of the contrast."""
TARGET = 0.6
"""Share of surely recognized real images that the probability is steered to."""
IMAGES_TO_FULL = 50_000
"""How many images it takes the probability to go from 0 to 1, at the fastest."""
MOST = 0.8
"""Highest probability; below it the generator cannot mistake the changes for the images' own look."""


def augmented(
    images: Float[Tensor, "n c h w"], probability: Float[Tensor, ""], *, flips: bool
) -> Float[Tensor, "n c h w"]:
    """Return images of which each was changed, in each of the ways apart, with a probability.

    Ways: mirrored (where that keeps the class), shifted, resized, turned, made brighter, given more contrast, a square
    of half the side cut out. What moves in from outside is mirrored from inside. Draws from torch's global generator.

    Args:
        images: in [0, 1].
        probability: in [0, 1], a tensor, so that nothing waits for it.
        flips: whether mirror images are allowed.

    Source: T. Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020. Differs:
    fewer ways, no filters against aliasing.
    """
    count, _, height, width = images.shape

    def chance(ways: int = 1) -> Tensor:
        return (torch.rand(count, ways, device=images.device) < probability).to(images)

    def normal(ways: int = 1) -> Tensor:
        return torch.randn(count, ways, device=images.device) * chance(ways)

    shift, zoom, angle = 2 * SHIFT * normal(2), (ZOOM * normal()).exp(), TURN * normal()
    mirror = 1 - 2 * chance() * (torch.rand(count, 1, device=images.device) < 0.5) if flips else torch.ones_like(zoom)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = [torch.cat([cos * mirror, -sin, shift[:, :1]], 1), torch.cat([sin * mirror, cos, shift[:, 1:]], 1)]
    places = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, places, padding_mode="reflection", align_corners=False)
    middle = moved.mean((1, 2, 3), keepdim=True)
    contrast = (CONTRAST * normal()).exp().view(-1, 1, 1, 1)
    lit = (moved - middle) * contrast + middle + (BRIGHTNESS * normal()).view(-1, 1, 1, 1)
    return lit * _window(count, height, width, chance(), images)


class Steered:
    """The probability of augmentation, steered by how sure the discriminator is of real images.

    It rises while the mean sign of the logits of real images is above `TARGET`, and falls below.

    Args:
        device: where it is kept; it is never waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self.probability = torch.zeros((), device=device)

    @torch.no_grad()
    def update(self, of_real: Float[Tensor, " n"]) -> None:
        """Move the probability by one batch."""
        direction = torch.sign(of_real.sign().mean() - TARGET)
        self.probability = (self.probability + direction * len(of_real) / IMAGES_TO_FULL).clamp(0, MOST)


def _window(count: int, height: int, width: int, chosen: Tensor, like: Tensor) -> Tensor:
    """Return masks ``(n, 1, h, w)``: 0 in a square of half the side around a random place, for the chosen images."""
    centre = torch.rand(count, 2, device=like.device)
    down = torch.linspace(0, 1, height, device=like.device).view(1, 1, -1, 1)
    right = torch.linspace(0, 1, width, device=like.device).view(1, 1, 1, -1)
    outside = ((down - centre[:, 0].view(-1, 1, 1, 1)).abs() > 0.25) | (
        (right - centre[:, 1].view(-1, 1, 1, 1)).abs() > 0.25
    )
    return torch.where(chosen.view(-1, 1, 1, 1) > 0, outside.to(like), torch.ones_like(like[:, :1]))
