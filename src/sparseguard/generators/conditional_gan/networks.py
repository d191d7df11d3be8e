"""The two networks of a class-conditional GAN, for images of any size, gray or color."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

ImageShape = tuple[int, int, int]
SMALLEST = 8
"""Longest side of the grid on which the generator starts."""


class ConditionalGenerator(nn.Module):
    """Generator from classes and noise to images in [0, 1].

    A dense layer spreads noise and class over a small grid, which transposed convolutions double to the image's size.

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        latent: length of the noise, and of a class's embedding.
        width: channels at full size; twice as many at half size, four times at all smaller ones.
    """

    def __init__(self, shape: ImageShape, classes: int, *, latent: int, width: int) -> None:
        super().__init__()
        self.sizes = _sizes(shape)
        self.latent = latent
        self.embedding = nn.Embedding(classes, latent)
        channels = _widths(width, len(self.sizes))[::-1]
        self.spread = nn.Sequential(
            nn.Linear(2 * latent, channels[0] * math.prod(self.sizes[0])),
            nn.Unflatten(1, (channels[0], *self.sizes[0])),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
        )
        self.doublings = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
            )
            for inputs, outputs in pairwise(channels)
        )
        self.out = nn.Sequential(nn.Conv2d(channels[-1], shape[0], 3, padding=1), nn.Sigmoid())

    def forward(self, noise: Float[Tensor, "n latent"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        """Return an image of each label."""
        grid = self.spread(torch.cat([noise, self.embedding(labels)], 1))
        for (height, width), doubling in zip(self.sizes[1:], self.doublings, strict=True):
            grid = doubling(grid)[:, :, :height, :width]
        images: Tensor = self.out(grid)
        return images

    def noise(self, count: int, generator: torch.Generator) -> Float[Tensor, "n latent"]:
        """Return noise drawn from ``generator``, on the network's device."""
        noise = torch.randn(count, self.latent, generator=generator, device=generator.device)
        return noise.to(self.embedding.weight.device)

    @torch.no_grad()
    def sample(self, labels: Int[Tensor, " n"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """Return an image of each label, on the CPU, with noise from ``generator``.

        In evaluation mode an image does not depend on the rest of the batch.
        """
        batches = labels.to(self.embedding.weight.device).split(500)
        return torch.cat([self(self.noise(len(batch), generator), batch).cpu() for batch in batches])


class Discriminator(nn.Module):
    """Discriminator of images and classes: one logit an image.

    Convolutions that halve the image, a dense layer, and a projection on the class (Miyato and Koyama, ICLR 2018).

    Args:
        shape: channels, height and width of the images.
        classes: how many.
        width: channels after the first convolution; twice as many after the second, four times after the others.
        features: width of the dense layer.
    """

    def __init__(self, shape: ImageShape, classes: int, *, width: int, features: int = 128) -> None:
        super().__init__()
        sizes = _sizes(shape)
        channels = [shape[0], *_widths(width, len(sizes) - 1)]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        dense = nn.Linear(channels[-1] * math.prod(sizes[0]), features)
        self.features = nn.Sequential(*layers, nn.Flatten(), dense, nn.LeakyReLU(0.2))
        self.real = nn.Linear(features, 1)
        self.of_class = nn.Embedding(classes, features)
        nn.init.normal_(self.of_class.weight, std=0.1)

    def forward(self, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return the logits that the images are real images of these classes."""
        features = self.features(images * 2 - 1)
        logits: Tensor = self.real(features).squeeze(1) + (self.of_class(labels) * features).sum(1)
        return logits


def _sizes(shape: ImageShape) -> list[tuple[int, int]]:
    """Return the grids from the smallest to the image's, each half the next one, rounded up."""
    sizes = [shape[1:]]
    while len(sizes) == 1 or max(sizes[-1]) > SMALLEST:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes[::-1]


def _widths(width: int, count: int) -> list[int]:
    return [width * min(2**number, 4) for number in range(count)]
