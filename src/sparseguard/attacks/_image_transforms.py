"""How a target is shown what a prior makes: fitted to its size, cropped at random, mirrored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "n c h w"]
Resized = Float[Tensor, "n c2 h2 w2"]
Range = tuple[float, float]
GREY = (0.299, 0.587, 0.114)


def fitted(images: Images, shape: tuple[int, int, int], crop: int) -> Resized:
    """Return images as a target of this image ``shape`` takes them; differentiable.

    The middle ``crop`` pixels are cut out (0: all), colours become grey or grey is repeated, then antialiased bilinear
    resizing.
    """
    if crop:
        top, left = ((side - crop) // 2 for side in images.shape[2:])
        images = images[:, :, top : top + crop, left : left + crop]
    if images.shape[1] == 3 and shape[0] == 1:
        images = (images * images.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
    elif images.shape[1] == 1 and shape[0] == 3:
        images = images.expand(-1, 3, -1, -1)
    return resized(images, shape[1:])


def resized(images: Images, size: tuple[int, int]) -> Resized:
    """Return images at another size, by antialiased bilinear interpolation; unchanged at their own."""
    if images.shape[2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def clipped(images: Images) -> Images:
    """Return images clipped to [0, 1], the gradient passing as if they were not."""
    return images - (images - images.clamp(0, 1)).detach()


@dataclass(frozen=True)
class Crop:
    """A rectangle within an image, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool

    def of(self, images: Images) -> Images:
        """Return the rectangle of every image, enlarged to the image's size; differentiable."""
        part = images[:, :, self.top : self.top + self.height, self.left : self.left + self.width]
        whole = resized(part, (images.shape[2], images.shape[3]))
        return whole.flip(3) if self.mirrored else whole


def random_crop(size: tuple[int, int], scale: Range, ratio: Range, mirrors: bool, generator: torch.Generator) -> Crop:
    """Draw a rectangle whose share of the area is uniform in ``scale`` and whose logarithmic aspect is in ``ratio``.

    As torchvision's RandomResizedCrop: ten tries, else the largest in the middle whose aspect is in ``ratio``. Mirrored
    half of the time, if allowed.

    Raises:
        ValueError: for a range that is not 0 < low <= high.
    """
    for low, high in (scale, ratio):
        if not 0 < low <= high:
            raise ValueError(f"a range must be 0 < low <= high, got {(low, high)}.")
    height, width = size
    mirrored = mirrors and float(torch.rand((), generator=generator)) < 0.5
    for _ in range(10):
        share, aspect = (float(value) for value in torch.rand(2, generator=generator))
        area = height * width * (scale[0] + share * (scale[1] - scale[0]))
        stretch = math.exp(math.log(ratio[0]) + aspect * (math.log(ratio[1]) - math.log(ratio[0])))
        w, h = round(math.sqrt(area * stretch)), round(math.sqrt(area / stretch))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(height - h + 1, (), generator=generator))
            left = int(torch.randint(width - w + 1, (), generator=generator))
            return Crop(top, left, h, w, mirrored)
    w = min(width, round(height * ratio[1]))
    h = min(height, round(width / ratio[0]))
    return Crop((height - h) // 2, (width - w) // 2, h, w, mirrored)
