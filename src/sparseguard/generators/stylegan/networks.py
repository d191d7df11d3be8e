"""A compact style-based generator and its discriminator, for images of 8 to 256 pixels a side, gray or color."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ImageShape = tuple[int, int, int]
SMALLEST = 4
"""Longest side of the grid on which the generator starts."""
SLOPE = 0.2
MAPPING_RATE = 0.01
"""Learning rate of the mapping network, relative to the others'."""


def grid_sizes(shape: ImageShape) -> list[tuple[int, int]]:
    """Return the grids from the smallest to the image's, each half the next one, rounded up.

    Example:
        >>> grid_sizes((1, 28, 28))
        [(4, 4), (7, 7), (14, 14), (28, 28)]
    """
    sizes = [shape[1:]]
    while len(sizes) == 1 or max(sizes[-1]) > SMALLEST:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes[::-1]


def channel_widths(width: int, count: int, most: int) -> list[int]:
    """Return the channels from the image's grid to the smallest: doubled at every halving, up to ``most`` times.

    Example:
        >>> channel_widths(16, 4, 4)
        [16, 32, 64, 64]
    """
    return [width * min(2**number, most) for number in range(count)]


class EqualLinear(nn.Module):
    """A dense layer whose weights are kept at unit variance and scaled when used (equalized learning rate).

    Args:
        inputs: width of the input.
        outputs: width of the output.
        bias: initial value of the bias.
        rate: relative learning rate.
        active: whether a leaky ReLU follows, scaled to keep the variance.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: float = 0.0, rate: float = 1.0, active: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.gain, self.rate, self.active = rate / math.sqrt(inputs), rate, active

    def forward(self, values: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """Return the layer's output."""
        out = F.linear(values, self.weight * self.gain, self.bias * self.rate)
        return scaled_leaky_relu(out) if self.active else out


class EqualConv(nn.Module):
    """A convolution that keeps the grid, at an equalized learning rate."""

    def __init__(self, inputs: int, outputs: int, size: int, *, bias: bool = True, active: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain, self.active = 1 / math.sqrt(inputs * size**2), active

    def forward(self, grid: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h w"]:
        """Return the convolution."""
        out = F.conv2d(grid, self.weight * self.gain, self.bias, padding=self.weight.shape[2] // 2)
        return scaled_leaky_relu(out) if self.active else out


class ModulatedConv(nn.Module):
    r"""A convolution whose weights are scaled by a style, channel by channel, and normalized again.

    .. math:: w'_{oik} = s_i w_{oik}, \qquad w''_{oik} = w'_{oik} / \sqrt{\sum_{ik} w'^2_{oik} + \epsilon}

    Computed by scaling inputs and outputs instead of weights, which is the same and needs one convolution for a batch.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        size: side of the kernel.
        style: length of w.
        demodulate: whether the weights are normalized.

    Source: T. Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, section 2.2.
    """

    def __init__(self, inputs: int, outputs: int, size: int, style: int, *, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = EqualLinear(style, inputs, bias=1.0)
        self.gain, self.demodulate = 1 / math.sqrt(inputs * size**2), demodulate

    def forward(self, grid: Float[Tensor, "n inputs h w"], w: Float[Tensor, "n style"]) -> Tensor:
        """Return ``(n, outputs, h, w)``."""
        scale = self.style(w)
        weight = self.weight * self.gain
        out = F.conv2d(grid * scale[:, :, None, None], weight, padding=weight.shape[2] // 2)
        if self.demodulate:
            energy = scale.square() @ weight.square().sum((2, 3)).T  # (n, outputs)
            out = out * (energy + 1e-8).rsqrt()[:, :, None, None]
        return out + self.bias[None, :, None, None]


class SynthesisBlock(nn.Module):
    """Block that doubles the grid, convolves twice, and adds a picture to the enlarged one before it (skip outputs)."""

    def __init__(self, inputs: int, outputs: int, channels: int, size: tuple[int, int], style: int) -> None:
        super().__init__()
        self.size = size
        self.first = ModulatedConv(inputs, outputs, 3, style)
        self.second = ModulatedConv(outputs, outputs, 3, style)
        self.picture = ModulatedConv(outputs, channels, 1, style, demodulate=False)

    def forward(
        self, grid: Tensor, picture: Tensor | None, first: Float[Tensor, "n style"], second: Float[Tensor, "n style"]
    ) -> tuple[Tensor, Tensor]:
        """Return grid and picture at this block's size."""
        if grid.shape[2:] != self.size:
            grid = F.interpolate(grid, self.size, mode="bilinear", align_corners=False)
        grid = scaled_leaky_relu(self.first(grid, first))
        grid = scaled_leaky_relu(self.second(grid, second))
        own = self.picture(grid, second)
        if picture is not None:
            own = own + F.interpolate(picture, self.size, mode="bilinear", align_corners=False)
        return grid, own


class StyleGenerator(nn.Module):
    """Generator from z by a mapping network to w, and from w, two for every grid, to images in about [0, 1].

    There are no noise inputs: an image is a function of its w alone.

    Args:
        shape: channels, height and width of the images.
        latent: length of z and of w.
        width: channels at full size; doubled at every halving.
        most: channels are at most so many times ``width``.
        depth: dense layers of the mapping.

    Source: T. Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019, and
    CVPR 2020 (see `ModulatedConv`). Differs: no noise, no filters besides bilinear enlarging, fewer and narrower
    layers.
    """

    mean_w: Tensor

    def __init__(self, shape: ImageShape, *, latent: int, width: int, most: int, depth: int) -> None:
        super().__init__()
        sizes = grid_sizes(shape)
        channels = channel_widths(width, len(sizes), most)[::-1]
        self.latent = latent
        self.num_ws = 2 * len(sizes)
        self.mapping_layers = nn.Sequential(
            *(EqualLinear(latent, latent, rate=MAPPING_RATE, active=True) for _ in range(depth))
        )
        self.start = nn.Parameter(torch.randn(1, channels[0], *sizes[0]))
        self.blocks = nn.ModuleList(
            SynthesisBlock(before, here, shape[0], size, latent)
            for (before, here), size in zip(pairwise([channels[0], *channels]), sizes, strict=True)
        )
        self.register_buffer("mean_w", torch.zeros(latent))

    def mapping(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n latent"]:
        """Return one w for each z, whose length does not matter."""
        w: Tensor = self.mapping_layers(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
        return w

    def synthesis(self, w: Float[Tensor, "n num_ws latent"]) -> Float[Tensor, "n c h w"]:
        """Return the images of w."""
        grid: Tensor = self.start.expand(len(w), -1, -1, -1)
        picture: Tensor | None = None
        for number, block in enumerate(self.blocks):
            grid, picture = block(grid, picture, w[:, 2 * number], w[:, 2 * number + 1])
        assert picture is not None  # there are two grids at least
        return (picture + 1) / 2

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n c h w"]:
        """Return the images of z."""
        return self.synthesis(self.mapping(z).unsqueeze(1).expand(-1, self.num_ws, -1))


class StyleDiscriminator(nn.Module):
    """Discriminator: residual blocks that halve the grid, minibatch deviation, one logit an image.

    In evaluation mode the deviation is the usual one of training, so that no image depends on others.

    Args:
        shape: channels, height and width of the images.
        width: channels at full size; doubled at every halving.
        most: channels are at most so many times ``width``.

    Source: the residual discriminator of Karras et al., CVPR 2020. Differs: averages for filters, narrower.
    """

    usual_deviation: Tensor

    def __init__(self, shape: ImageShape, *, width: int, most: int) -> None:
        super().__init__()
        sizes = grid_sizes(shape)[::-1]
        channels = channel_widths(width, len(sizes), most)
        self.first = EqualConv(shape[0], channels[0], 1, active=True)
        self.blocks = nn.ModuleList(HalvingBlock(here, after) for here, after in pairwise(channels))
        self.last = EqualConv(channels[-1] + 1, channels[-1], 3, active=True)
        self.dense = EqualLinear(channels[-1] * math.prod(sizes[-1]), channels[-1], active=True)
        self.real = EqualLinear(channels[-1], 1)
        self.register_buffer("usual_deviation", torch.zeros(()))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Return the logits that images in [0, 1] are real."""
        grid = self.first(images * 2 - 1)
        for block in self.blocks:
            grid = block(grid)
        deviation = self._deviation(grid).expand(len(grid), 1, *grid.shape[2:])
        grid = self.last(torch.cat([grid, deviation], 1))
        logits: Tensor = self.real(self.dense(grid.flatten(1)))
        return logits.squeeze(1)

    def _deviation(self, grid: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        if not self.training:
            return self.usual_deviation
        deviation = (grid.var(0, unbiased=False) + 1e-8).sqrt().mean()
        with torch.no_grad():
            self.usual_deviation.lerp_(deviation, 0.01)
        return deviation


class HalvingBlock(nn.Module):
    """Two convolutions beside a shortcut, both averaged down to the next grid."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = EqualConv(inputs, inputs, 3, active=True)
        self.second = EqualConv(inputs, outputs, 3, active=True)
        self.shortcut = EqualConv(inputs, outputs, 1, bias=False)

    def forward(self, grid: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        """Return the smaller grid."""
        out: Tensor = (self.second(halve(self.first(grid))) + self.shortcut(halve(grid))) / math.sqrt(2)
        return out


def scaled_leaky_relu(values: Tensor) -> Tensor:
    """Return the leaky ReLU, times the square root of 2 to keep the variance."""
    return F.leaky_relu(values, SLOPE) * math.sqrt(2)


def halve(grid: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Return means of 2 x 2 pixels; at an odd edge, of the pixels there are."""
    return F.avg_pool2d(grid, 2, ceil_mode=True, count_include_pad=False)
