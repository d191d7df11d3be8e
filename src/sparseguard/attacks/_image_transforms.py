"""Transforms between a prior's images and a target's inputs: fit to its size, random crops, mirroring."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparseguard.types import Images

Resized = Float[Tensor, "n c2 h2 w2"]
Range = tuple[float, float]
GRAY = (0.299, 0.587, 0.114)


def fit_to_shape(images: Images, shape: tuple[int, int, int], crop: int) -> Resized:
    """Return images of the ``shape`` a target takes; differentiable.

    Crops the middle ``crop`` pixels (0: all), converts color to gray or repeats gray, and resizes with antialiasing.
    """
    if crop:
        top, left = ((side - crop) // 2 for side in images.shape[2:])
        images = images[:, :, top : top + crop, left : left + crop]
    if images.shape[1] == 3 and shape[0] == 1:
        images = (images * images.new_tensor(GRAY).view(1, 3, 1, 1)).sum(1, keepdim=True)
    elif images.shape[1] == 1 and shape[0] == 3:
        images = images.expand(-1, 3, -1, -1)
    return resize(images, shape[1:])


def resize(images: Images, size: tuple[int, int]) -> Resized:
    """Resize images by antialiased bilinear interpolation; return them as they are if they have that size."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def clip_straight_through(images: Images) -> Images:
    """Return images clipped to [0, 1]; the gradient passes as if they were not."""
    return images - (images - images.clamp(0, 1)).detach()


@dataclass(frozen=True)
class Crop:
    """A rectangle within an image, in pixels, mirrored or not."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool

    def apply(self, images: Images) -> Images:
        """Crop every image and enlarge the crop to the image's size; differentiable."""
        crop = images[:, :, self.top : self.top + self.height, self.left : self.left + self.width]
        resized = resize(crop, (images.shape[2], images.shape[3]))
        return resized.flip(3) if self.mirrored else resized


def draw_crop(size: tuple[int, int], scale: Range, ratio: Range, mirrors: bool, generator: torch.Generator) -> Crop:
    """Draw a rectangle: its fraction of the area uniform in ``scale``, the logarithm of its aspect in ``ratio``.

    As torchvision's RandomResizedCrop: ten tries, else the largest central one whose aspect is in ``ratio``. Mirrored
    half of the time where ``mirrors`` allows it.

    Raises:
        ValueError: for a range that is not 0 < low <= high.
    """
    for low, high in (scale, ratio):
        if not 0 < low <= high:
            raise ValueError(f"a range must be 0 < low <= high, got {(low, high)}.")
    height, width = size
    mirrored = mirrors and float(torch.rand((), generator=generator)) < 0.5
    for _ in range(10):
        fraction, aspect = (float(value) for value in torch.rand(2, generator=generator))
        area = height * width * (scale[0] + fraction * (scale[1] - scale[0]))
        stretch = math.exp(math.log(ratio[0]) + aspect * (math.log(ratio[1]) - math.log(ratio[0])))
        w, h = round(math.sqrt(area * stretch)), round(math.sqrt(area / stretch))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(height - h + 1, (), generator=generator))
            left = int(torch.randint(width - w + 1, (), generator=generator))
            return Crop(top, left, h, w, mirrored)
    w = min(width, round(height * ratio[1]))
    h = min(height, round(width / ratio[0]))
    return Crop((height - h) // 2, (width - w) // 2, h, w, mirrored)
