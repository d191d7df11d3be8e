"""Decoder networks, sized from the tap's shape. Each corrects a first guess and starts as that guess."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ImageShape = tuple[int, int, int]
TapShape = tuple[int, ...]


class ResidualMLP(nn.Module):
    """Correct a guess by dense layers on the standardized features and the guess.

    Args:
        tap: shape of the features of one image.
        shape: channels, height and width of the images.
        width: of the hidden layers.
        depth: how many hidden layers.
    """

    def __init__(self, tap: TapShape, shape: ImageShape, width: int, depth: int) -> None:
        super().__init__()
        pixels = math.prod(shape)
        layers: list[nn.Module] = []
        inward = math.prod(tap) + pixels
        for _ in range(depth):
            layers += [nn.Linear(inward, width), nn.LayerNorm(width), nn.SiLU()]
            inward = width
        self.hidden = nn.Sequential(*layers)
        self.out = zero_init(nn.Linear(inward, pixels))

    def forward(self, features: Float[Tensor, "n *tap"], guess: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return the corrected guess, not clipped."""
        hidden = self.hidden(torch.cat([features.flatten(1), guess.flatten(1)], 1))
        corrected: Tensor = guess + self.out(hidden).view_as(guess)
        return corrected


class ResidualDecoder(nn.Module):
    """Correct a guess by convolutions.

    Vectors are spread over a grid of a quarter of the image's size by a dense layer; maps are brought to that grid by
    a 1 x 1 convolution and resizing. Two doublings lead to full size, where the guess joins.

    Args:
        tap: shape of the features of one image, ``(d,)`` or ``(channels, height, width)``.
        shape: channels, height and width of the images.
        width: channels at full size; twice and four times as many at half and quarter size.
        depth: convolutions at full size.
    """

    def __init__(self, tap: TapShape, shape: ImageShape, width: int, depth: int) -> None:
        super().__init__()
        c, h, w = shape
        self.sizes = (math.ceil(h / 4), math.ceil(w / 4)), (math.ceil(h / 2), math.ceil(w / 2)), (h, w)
        self.spread = Grid(tap, 4 * width, self.sizes[0])
        self.at_quarter = block(4 * width, 2 * width)
        self.at_half = block(2 * width, width)
        self.at_full = nn.Sequential(block(width + c, width), *(block(width, width) for _ in range(depth - 1)))
        self.out = zero_init(nn.Conv2d(width, c, 3, padding=1))

    def forward(self, features: Float[Tensor, "n *tap"], guess: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return the corrected guess, not clipped."""
        grid = self.spread(features)  # (n, 4w, h/4, w/4)
        grid = F.interpolate(self.at_quarter(grid), size=self.sizes[1])  # (n, 2w, h/2, w/2)
        grid = F.interpolate(self.at_half(grid), size=self.sizes[2])  # (n, w, h, w)
        grid = self.at_full(torch.cat([grid, guess], 1))
        corrected: Tensor = guess + self.out(grid)
        return corrected


class Grid(nn.Module):
    """Spread features over a grid: ``(n, *tap)`` to ``(n, channels, height, width)``."""

    def __init__(self, tap: TapShape, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.channels = size, channels
        self.spatial = len(tap) == 3
        self.spread: nn.Module = (
            nn.Conv2d(tap[0], channels, 1) if self.spatial else nn.Linear(math.prod(tap), channels * math.prod(size))
        )

    def forward(self, features: Float[Tensor, "n *tap"]) -> Float[Tensor, "n f h w"]:
        """Return the grid."""
        if self.spatial:
            return F.adaptive_avg_pool2d(self.spread(features), self.size)
        grid: Tensor = self.spread(features.flatten(1)).view(len(features), self.channels, *self.size)
        return grid


def block(inward: int, outward: int) -> nn.Module:
    """Return a 3 x 3 convolution with group normalization and SiLU."""
    return nn.Sequential(
        nn.Conv2d(inward, outward, 3, padding=1), nn.GroupNorm(math.gcd(4, outward), outward), nn.SiLU()
    )


def zero_init(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """Set a layer's parameters to zero, so that it starts with output zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
