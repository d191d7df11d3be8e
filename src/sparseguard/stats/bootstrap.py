"""How sure a mean is: over images by the bootstrap, over seeds by Student's t; the two are told apart.

An interval over images holds for the one trained model that was attacked. How results vary with training is what
several seeds say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sparseguard.core.errors import DataError

Interval = tuple[float, float]
_DRAWS = 1 << 21
"""Drawn at a time: 2 M places of 8 bytes."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much higher the first of two scores is, image by image.

    Args:
        mean: of first minus second.
        interval: of the mean, over images; None for fewer than two images.
        n: how many images.
    """

    mean: float
    interval: Interval | None
    n: int


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """What several seeds say of a mean.

    Args:
        mean: over seeds.
        std: over seeds, of n - 1 degrees of freedom; None for one seed.
        interval: of the mean by Student's t; None for one seed.
        n: how many seeds.
    """

    mean: float
    std: float | None
    interval: Interval | None
    n: int


def bootstrap_interval(
    values: Float[Tensor, " n"], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval | None:
    """Return the percentile bootstrap interval of the mean over images; None for fewer than two.

    Ends are the (1 - level)/2 and (1 + level)/2 quantiles of the means of ``resamples`` draws of n images with
    replacement. With 2,000 draws the ends are uncertain by some per cent of the width. Below some 20 images the
    interval is too narrow.

    Args:
        values: one score an image.
        level: coverage, between 0 and 1.
        resamples: how many draws.
        seed: of the draws.

    Raises:
        DataError: for a value that is not finite.

    Source: B. Efron, "Bootstrap methods: another look at the jackknife", 1979.

    Example:
        >>> import torch
        >>> low, high = bootstrap_interval(torch.arange(100.0))
        >>> low < 49.5 < high
        True
    """
    scores = _finite(values)
    n = len(scores)
    if n < 2:
        return None
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS // n)
    means = np.concatenate(
        [
            scores[generator.integers(0, n, size=(min(at_once, resamples - done), n))].mean(1)
            for done in range(0, resamples, at_once)
        ]
    )
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def paired_difference(
    first: Float[Tensor, " n"],
    second: Float[Tensor, " m"],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """Return the mean of ``first - second`` and its bootstrap interval over images, both scores of an image together.

    Far narrower than what two separate intervals suggest, as easy images are easy for both.

    Args:
        first: one score an image, such as those without a defense.
        second: scores of the same images in the same order, such as those with it.
        level: coverage, between 0 and 1.
        resamples: how many draws.
        seed: of the draws.

    Raises:
        DataError: for different numbers of images, none at all, or a value that is not finite.
    """
    if len(first) != len(second) or len(first) == 0:
        raise DataError(f"paired scores must be of the same images, got {len(first)} and {len(second)}.")
    difference = first.double() - second.double()
    return Difference(
        mean=float(_finite(difference).mean()),
        interval=bootstrap_interval(difference, level, resamples, seed),
        n=len(difference),
    )


def over_seeds(means: Sequence[float], level: float = 0.95) -> SeedSpread:
    r"""Return mean, deviation and the interval :math:`\bar m \pm t_{n-1} s / \sqrt n` of one mean a seed.

    Args:
        means: one value a seed.
        level: coverage, between 0 and 1.

    Raises:
        DataError: for no value, or one that is not finite.

    Example:
        >>> over_seeds([1.0]).interval is None
        True
        >>> low, high = over_seeds([1.0, 2.0, 3.0]).interval
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
    """
    values = np.asarray(means, dtype=np.float64)
    n = len(values)
    if n == 0 or not np.isfinite(values).all():
        raise DataError("means over seeds must be finite, and at least one.")
    mean = float(values.mean())
    if n == 1:
        return SeedSpread(mean=mean, std=None, interval=None, n=1)
    std = float(values.std(ddof=1))
    half = student_quantile(level, n - 1) * std / math.sqrt(n)
    return SeedSpread(mean=mean, std=std, interval=(mean - half, mean + half), n=n)


def student_quantile(level: float, freedom: int) -> float:
    """Return t with P(-t < T < t) = ``level`` for Student's T of ``freedom`` degrees of freedom, by bisection.

    Source: M. Abramowitz, I. Stegun, "Handbook of Mathematical Functions", 26.7.3 and 26.7.4.

    Example:
        >>> round(student_quantile(0.95, 4), 3)
        2.776
    """
    low, high = 0.0, math.pi / 2  # of the angle atan(t / sqrt(freedom))
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """Return P(-t < T < t), where t = sqrt(freedom) tan(angle)."""
    odd = freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for power in range(1 + odd, freedom, 2):
        total += term
        term *= math.cos(angle) ** 2 * power / (power + 1)
    share = math.sin(angle) * total
    return 2 / math.pi * (angle + share) if odd else share


def _finite(values: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    scores: np.ndarray[tuple[int], np.dtype[np.float64]] = values.detach().cpu().double().numpy()
    if not np.isfinite(scores).all():
        raise DataError(f"scores must be finite, {int((~np.isfinite(scores)).sum())} are not.")
    return scores
