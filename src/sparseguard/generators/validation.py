"""Checks of an imported prior on a few of its images."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

from sparseguard.core.errors import DataError
from sparseguard.generators.base import Prior

IMAGES = 6
TOLERANCE = 1e-4
FAR, NARROW = 0.5, 0.02
"""Refused: values so far beyond the range, or within so small a fraction of it, in units of its width."""


def _ascending(output: tuple[float, float]) -> tuple[float, float]:
    if not output[0] < output[1]:
        raise ValueError("must be the lowest and the highest value of a pixel")
    return output


OutputRange = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""A network's values of black and white."""


def rescale(images: Tensor, output: tuple[float, float]) -> Tensor:
    """Return a network's images with its black at 0 and its white at 1, not clipped.

    Example:
        >>> rescale(torch.tensor([-1.0, 0.0, 1.0]), (-1.0, 1.0))
        tensor([0.0000, 0.5000, 1.0000])
    """
    return (images - output[0]) / (output[1] - output[0])


@torch.no_grad()
def check_images(prior: Prior, output: tuple[float, float], seed: int = 0) -> tuple[float, float]:
    """Check that a few images are finite, reproducible, independent of their batch, and in their range.

    The range is refused when 1 value in 200 lies beyond it by half its width, or 99 of 100 lie within a fiftieth of
    it. A smaller error of the range passes unnoticed.

    Returns:
        The range of 99 of 100 values, in the network's own units.

    Raises:
        DataError: naming the failed check.
    """
    where = f"prior '{prior.card.name}'"
    z = prior.latents(IMAGES, torch.Generator().manual_seed(seed))
    images = prior.synthesis(prior.mapping(z))
    if images.shape != (IMAGES, *prior.card.shape):
        raise DataError(f"{where}: its images are {tuple(images.shape[1:])} instead of {prior.card.shape}.")
    if not images.isfinite().all():
        raise DataError(f"{where}: its images are not finite.")
    _compare(where, images, prior.synthesis(prior.mapping(z)), "made again from the same z; it must not be random")
    alone = prior.synthesis(prior.mapping(z[:1]))
    _compare(where, images[:1], alone, "made without the rest of the batch; it must not depend on it (BatchNorm?)")
    return _check_range(where, images, output)


def _compare(where: str, images: Tensor, repeated: Tensor, how: str) -> None:
    if not torch.allclose(images, repeated, rtol=TOLERANCE, atol=TOLERANCE):
        most = float((images - repeated).abs().max())
        raise DataError(f"{where}: an image differs by up to {most:.2g} of the range when {how}.")


def _check_range(where: str, images: Tensor, output: tuple[float, float]) -> tuple[float, float]:
    values = images.flatten().float()
    values = values[:: values.numel() // 1_000_000 + 1]
    low, high = torch.quantile(values, torch.tensor([0.005, 0.995])).tolist()
    measured = tuple(output[0] + quantile * (output[1] - output[0]) for quantile in (low, high))
    if low < -FAR or high > 1 + FAR or high - low < NARROW:
        raise DataError(
            f"{where}: the output range is given as {output[0]:g} to {output[1]:g}, but 99 of 100 values lie between "
            f"{measured[0]:.3g} and {measured[1]:.3g}. Give the values that mean black and white."
        )
    return measured[0], measured[1]
