"""Intervals of a mean by the normal distribution and by Student's t, and the summary of several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sparseguard.core.errors import DataError
from sparseguard.stats.bootstrap import Interval

_Z = 1.96


@dataclass(frozen=True, kw_only=True)
class SeedSummary:
    """Mean over seeds, and how it varies with them.

    Args:
        mean: over seeds.
        std: over seeds, of n - 1 degrees of freedom; None for one seed.
        interval: of the mean by Student's t; None for one seed.
        n: number of seeds.
    """

    mean: float
    std: float | None
    interval: Interval | None
    n: int


def summarize_seeds(means: Sequence[float], confidence: float = 0.95) -> SeedSummary:
    r"""Return mean, deviation and the interval :math:`\bar m \pm t_{n-1} s / \sqrt n` of one mean a seed.

    Args:
        means: one value a seed.
        confidence: coverage, between 0 and 1.

    Raises:
        DataError: for no value, or one that is not finite.

    Example:
        >>> summarize_seeds([1.0]).interval is None
        True
        >>> low, high = summarize_seeds([1.0, 2.0, 3.0]).interval
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
    """
    values = np.asarray(means, dtype=np.float64)
    n = len(values)
    if n == 0 or not np.isfinite(values).all():
        raise DataError("means over seeds must be finite, and at least one.")
    mean = float(values.mean())
    if n == 1:
        return SeedSummary(mean=mean, std=None, interval=None, n=1)
    half = t_half_width(values, confidence)
    return SeedSummary(mean=mean, std=float(values.std(ddof=1)), interval=(mean - half, mean + half), n=n)


def t_half_width(values: Float[np.ndarray, " n"], confidence: float = 0.95) -> float:
    r"""Return half the width of Student's interval of the mean, :math:`t_{n-1} s / \sqrt n`; 0 for a single value.

    It assumes independent values of a normal distribution; of many values it holds for others too.

    Args:
        values: ``(n,)``, n at least 1.
        confidence: coverage, between 0 and 1.

    Example:
        >>> import numpy as np
        >>> round(t_half_width(np.array([1.0, 2.0, 3.0])), 3)
        2.484
    """
    from scipy.special import stdtrit  # the quantile of scipy.stats.t, whose import takes 0.7 s

    n = len(values)
    if n < 2:
        return 0.0
    return float(stdtrit(n - 1, (1 + confidence) / 2)) * float(values.std(ddof=1)) / math.sqrt(n)


def normal_interval(mean: float, std: float, n: int) -> Interval:
    r"""Return the 95 % interval :math:`\bar x \pm 1.96\, s / \sqrt n` of a mean over n images.

    It is right for many images; of a few, skewed scores the bootstrap is better.
    """
    half = _Z * std / math.sqrt(n)
    return mean - half, mean + half
