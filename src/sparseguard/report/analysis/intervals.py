"""How sure a mean over images is, by the bootstrap. What seeds say is told apart from it, as a standard deviation."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt16

RESAMPLES = 2000
_AT_ONCE = 200

Interval = tuple[float, float]


def bootstrap_interval(values: Float[np.ndarray, " n"], level: float = 0.95) -> Interval | None:
    """Return the percentile bootstrap interval of the mean over images; None for fewer than two images.

    Its ends are quantiles of the means of 2,000 draws of n images with replacement. The draws are the same for every
    n values, so the same scores always have the same interval.

    Source: B. Efron, "Bootstrap methods: another look at the jackknife", 1979.

    Example:
        >>> low, high = bootstrap_interval(np.arange(100.0))
        >>> low < 49.5 < high
        True
    """
    return bootstrap_intervals(values[None], level)[0] if len(values) > 1 else None


def bootstrap_intervals(scores: Float[np.ndarray, "k n"], level: float = 0.95) -> list[Interval]:
    """Return the intervals of `bootstrap_interval` for several scores of the same n > 1 images at once."""
    n = scores.shape[1]
    drawn = _draws(n)
    means = np.concatenate(
        [drawn[at : at + _AT_ONCE].astype(np.float64) @ scores.T / n for at in range(0, RESAMPLES, _AT_ONCE)]
    )
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2), axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


@lru_cache(maxsize=8)
def _draws(n: int) -> UInt16[np.ndarray, "resamples n"]:
    """Return how often each of n images is in each draw."""
    generator = np.random.default_rng(0)
    counts = np.empty((RESAMPLES, n), dtype=np.uint16)
    for row in counts:
        row[:] = np.bincount(generator.integers(0, n, size=n), minlength=n)
    return counts
