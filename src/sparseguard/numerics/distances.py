"""Squared Euclidean distances: between two sets of points, and within one, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 512
"""Rows compared at a time."""


def pairwise_squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Return squared distances ``(n, m)``; those below 1e-12 of the points' squared lengths are rounding, and set to 0.

    Args:
        first: points ``(n, d)``.
        second: points ``(m, d)``.
    """
    lengths = first.square().sum(1, keepdim=True) + second.square().sum(1)
    squares = lengths - 2 * first @ second.T
    return squares.masked_fill_(squares <= 1e-12 * lengths, 0.0)


def squared_distances_within(points: Tensor) -> Tensor:
    """Return the squared distances ``(n, n)`` of all pairs of points ``(n, d)``, differentiable.

    Points are centered first. Distances that rounding cannot tell from 0 are 0 and get no gradient.
    """
    centered = points - points.mean(0)
    squares = centered.square().sum(1)
    sums = squares[:, None] + squares
    distances = sums - 2 * centered @ centered.T
    return distances.masked_fill(distances <= 16 * torch.finfo(points.dtype).eps * sums, 0)
