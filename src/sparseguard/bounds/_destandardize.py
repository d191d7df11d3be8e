"""Estimates of the mean and contrast that standardization removed from an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.numerics.ridge import LinearMap, fit_ridge_leave_one_out
from sparseguard.types import Images

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def image_statistics(images: Images) -> tuple[Float[Tensor, "n 1 1 1"], Float[Tensor, "n 1 1 1"]]:
    """Return each image's mean and (population) standard deviation over all its values."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean, (images - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelRange:
    r"""Estimate of an image's mean m and standard deviation s from its standardized form u, so that x = m + s u.

    An image whose darkest pixel is 0 and whose brightest is 1 has :math:`s = 1 / (\max u - \min u)` and
    :math:`m = -s \min u`. Where images do not fill the range, or u is a reconstruction, other statistics of u help:
    quantiles, mean absolute value, skewness and kurtosis. Both numbers are regressed on all of these.

    Args:
        regression: from the statistics of u to (m, s).

    Example:
        >>> import torch
        >>> from sparseguard.bounds import PixelRange
        >>> from sparseguard.sparse import standardize
        >>> images = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> images[:, 0, 0, 0], images[:, 0, 0, 1] = 0.0, 1.0
        >>> estimate = PixelRange.fit(standardize(images), images)
        >>> bool((estimate(standardize(images)) - images).abs().max() < 0.02)
        True
    """

    regression: LinearMap

    @classmethod
    def fit(cls, standardized: Images, images: Float[Tensor, "k ch hi wi"]) -> PixelRange:
        """Learn from auxiliary images.

        Args:
            standardized: the images in standardized form, or the output of an inversion if the estimate is for such.
            images: in [0, 1].

        Raises:
            ValueError: when the two differ in shape.
        """
        if standardized.shape != images.shape:
            raise ValueError(f"shapes differ: {tuple(standardized.shape)} and {tuple(images.shape)}.")
        mean, deviation = image_statistics(images.double())
        targets = torch.cat([mean, deviation], dim=1).flatten(1)
        return cls(regression=fit_ridge_leave_one_out(_describe(standardized), targets))

    def statistics(self, standardized: Images) -> tuple[Float[Tensor, "n 1 1 1"], Float[Tensor, "n 1 1 1"]]:
        """Return the estimates of mean, in [0, 1], and standard deviation, in [0, 1/2]."""
        estimates = self.regression(_describe(standardized)).to(standardized.dtype)
        return estimates[:, 0].clamp(0, 1).view(-1, 1, 1, 1), estimates[:, 1].clamp(0, 0.5).view(-1, 1, 1, 1)

    def __call__(self, standardized: Images) -> Images:
        """Return images in [0, 1]."""
        mean, deviation = self.statistics(standardized)
        return (mean + deviation * standardized).clamp(0, 1)


def _describe(standardized: Images) -> Float[Tensor, "n k"]:
    """Return statistics of each image, in float64; first the values that are exact for images that fill the range."""
    values = standardized.double().flatten(1)
    low, high = values.amin(1), values.amax(1)
    width = (high - low).clamp_min(1e-6)
    quantiles = torch.quantile(values, values.new_tensor(QUANTILES), dim=1)
    robust = (quantiles[-1] - quantiles[0]).clamp_min(1e-6)
    columns = [
        1 / width,
        -low / width,
        low,
        high,
        1 / robust,
        -quantiles[0] / robust,
        *quantiles,
        values.abs().mean(1),
        values.pow(3).mean(1),
        values.pow(4).mean(1).log1p(),
    ]
    return torch.stack(columns, dim=1)
