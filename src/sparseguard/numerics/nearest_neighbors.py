"""The nearest of other points, exactly: ties go to the first, and copies of a point are equally far from everything."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseguard.core.errors import DataError
from sparseguard.metrics.distribution import CHUNK, squared_distances

ROUNDING = 1e-12
"""Relative to the points' squared lengths: squared distances that differ by less are the same."""


def first_nearest(images: Tensor, others: Tensor) -> Tensor:
    """Return the place in ``others`` of each image's nearest, the first of those that differ by rounding only."""
    squares = squared_distances(images, others)
    lengths = images.square().sum(1, keepdim=True) + others.square().sum(1)
    tied = squares <= squares.amin(1, keepdim=True) + ROUNDING * lengths
    return torch.where(tied, torch.arange(len(others)), len(others)).amin(1)


def nearest_squares(images: Tensor, others: Tensor, k: int) -> Tensor:
    """Return each image's ``k`` smallest squared distances, taken from the differences."""
    nearest = squared_distances(images, others).topk(k, largest=False).indices
    return torch.stack([(images - others[place]).square().sum(1) for place in nearest.T], 1)


def to_nearest(images: Tensor, others: Tensor) -> Tensor:
    """Return each image's distance to its nearest; the same for copies of an image."""
    parts = images.split(CHUNK)
    return torch.cat([(part - others[first_nearest(part, others)]).square().sum(1) for part in parts]).sqrt()


def mean_spread(images: Tensor) -> float:
    """Return the mean distance between two different images."""
    total = sum(float(squared_distances(rows, images).sqrt().sum()) for rows in images.split(CHUNK))
    return total / (len(images) * (len(images) - 1))


def checked(*features: Tensor) -> tuple[Tensor, ...]:
    """Return features in float64 on the CPU.

    Raises:
        DataError: when they are not finite, or of different dimensions.
    """
    if len(dimensions := {each.shape[1] for each in features}) > 1:
        raise DataError(f"features of {' and of '.join(map(str, sorted(dimensions)))} dimensions cannot be compared.")
    if not all(bool(torch.isfinite(each).all()) for each in features):
        raise DataError("features must be finite; the images or the evaluator are broken.")
    return tuple(each.detach().cpu().double() for each in features)
