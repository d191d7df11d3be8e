"""MIDRE: random erasing of the private training images."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from sparseguard.core.config import settings
from sparseguard.defenses.base import Context, Defense, State
from sparseguard.types import Images, ImageSet

Fraction = Annotated[float, Field(ge=0, le=1)]
CHUNK = 4096


@final
@settings
class Midre(Defense):
    r"""Erase a random square of every private image, anew each time it is used in training.

    .. math:: \tilde x = (1 - m) \odot x + m \odot c, \quad \text{area of the square } m \sim U(l, h)

    l and h are the settings `low` and `high`. The square has a uniformly random position inside the image. Nothing
    is erased at a query.

    Args:
        low: least area, as a fraction of the image, in [0, 1].
        high: largest area, as a fraction of the image, in [0, 1].
        fill: value of erased pixels in [0, 1], or `mean`: the private images' mean color.

    Raises:
        RecipeError: high below low.

    Source: Tran, Nguyen et al. 2025 (TMLR), "Random erasing vs. model inversion"; squares of 0.1 to 0.4 of the area of
    every image by the authors' code.

    Differs: erased pixels get the mean color of the private images, where the authors' code takes ImageNet's. Sides
    are rounded to pixels and end at the image's shorter side.

    Limits: the model trains on less of each image, but query images are complete, and nothing bounds the information of
    a layer's output. With `fill = "mean"` the mean color is a statistic of private images that
    DP-SGD does not account for; with a number there is none.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "a random square of every private training image is erased"
    source: ClassVar[str] = "Tran, Nguyen et al. 2025 (TMLR)"
    low: Fraction = 0.1
    high: Fraction = 0.4
    fill: Fraction | Literal["mean"] = "mean"

    @model_validator(mode="after")
    def _check_order(self) -> Midre:
        if self.high < self.low:
            raise ValueError("high must not be below low")
        return self

    def find_unaccounted_access(self) -> str | None:
        """Return that the mean color comes from private images."""
        return "it fills with the private images' mean color: set fill to a number" if self.fill == "mean" else None

    def prepare(self, context: Context) -> State:
        """Compute the mean color of the private images."""
        return {"fill": mean_color(context.private)} if self.fill == "mean" else {}

    def transform(
        self, images: Tensor, labels: Tensor, *, state: State, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Erase a square of each image."""
        fill = state["fill"] if self.fill == "mean" else torch.full(images.shape[1:2], self.fill)
        return erase_squares(images, low=self.low, high=self.high, fill=fill.to(images), generator=generator), labels


def mean_color(images: ImageSet) -> Float[Tensor, " c"]:
    """Return the mean of each channel over all images."""
    sums = [images.batch(index).double().sum((0, 2, 3)) for index in torch.arange(len(images)).split(CHUNK)]
    _, height, width = images.shape
    return (torch.stack(sums).sum(0) / (len(images) * height * width)).float()


def erase_squares(
    images: Images, *, low: float, high: float, fill: Float[Tensor, " c"], generator: torch.Generator
) -> Images:
    """Return images with a random square of each replaced by ``fill``; the originals do not change.

    Args:
        images: of any size.
        low: least area, as a fraction of the image.
        high: largest area.
        fill: a value for each channel.
        generator: on the CPU.
    """
    count, _, height, width = images.shape
    area, down, right = torch.rand(3, count, generator=generator)
    side = ((low + (high - low) * area) * height * width).sqrt().round().clamp(max=min(height, width))
    top, left = (down * (height - side + 1)).floor(), (right * (width - side + 1)).floor()
    rows, columns = (_mark_range(*pair, size) for pair, size in (((top, side), height), ((left, side), width)))
    inside = (rows[:, :, None] & columns[:, None, :])[:, None].to(images.device)
    return torch.where(inside, fill.view(1, -1, 1, 1), images)


def _mark_range(start: Tensor, length: Tensor, size: int) -> Tensor:
    position = torch.arange(size)
    return (position >= start[:, None]) & (position < (start + length)[:, None])
