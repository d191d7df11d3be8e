"""Euclidean distances between two sets of points, some rows at a time."""

from __future__ import annotations

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
