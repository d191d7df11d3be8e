"""Exact nearest neighbors: ties go to the first, and copies of a point are equally far from everything."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseguard.core.errors import DataError
from sparseguard.numerics.distances import CHUNK, pairwise_squared_distances

ROUNDING = 1e-12
"""Relative to the points' squared lengths: squared distances that differ by less are the same."""


def nearest_index(points: Tensor, others: Tensor) -> Tensor:
    """Return the index in ``others`` of each point's nearest, the first of those that differ by rounding only."""
    squares = pairwise_squared_distances(points, others)
    lengths = points.square().sum(1, keepdim=True) + others.square().sum(1)
    tied = squares <= squares.amin(1, keepdim=True) + ROUNDING * lengths
    return torch.where(tied, torch.arange(len(others)), len(others)).amin(1)


def nearest_squared_distances(points: Tensor, others: Tensor, k: int) -> Tensor:
    """Return each point's ``k`` smallest squared distances ``(n, k)``, taken from the differences."""
    nearest = pairwise_squared_distances(points, others).topk(k, largest=False).indices
    return torch.stack([(points - others[index]).square().sum(1) for index in nearest.T], 1)


def nearest_distance(points: Tensor, others: Tensor) -> Tensor:
    """Return each point's distance to its nearest ``(n,)``; the same for copies of a point."""
    chunks = points.split(CHUNK)
    return torch.cat([(rows - others[nearest_index(rows, others)]).square().sum(1) for rows in chunks]).sqrt()


def mean_pairwise_distance(points: Tensor) -> float:
    """Return the mean distance between two different points."""
    total = sum(float(pairwise_squared_distances(rows, points).sqrt().sum()) for rows in points.split(CHUNK))
    return total / (len(points) * (len(points) - 1))


def validate_features(*features: Tensor) -> tuple[Tensor, ...]:
    """Return features in float64 on the CPU.

    Raises:
        DataError: when they are not finite, or of different dimensions.
    """
    if len(dimensions := {each.shape[1] for each in features}) > 1:
        raise DataError(f"features of {' and of '.join(map(str, sorted(dimensions)))} dimensions cannot be compared.")
    if not all(bool(torch.isfinite(each).all()) for each in features):
        raise DataError("features must be finite; the images or the evaluator are broken.")
    return tuple(each.detach().cpu().double() for each in features)
