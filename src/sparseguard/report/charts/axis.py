"""Axes of charts: round ticks, and positions of values between the ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A scale from ``low`` to ``high`` with its ticks, as values and words; logarithmic ones hold positive values."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def fraction(self, value: float) -> float:
        """Return the position of a value: 0 at the low end, 1 at the high one."""
        if self.log:
            return (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (value - self.low) / (self.high - self.low)


def choose_step(span: float, count: int = 4, least: float = 1.0) -> float:
    """Return 1, 2 or 5 times a power of ten that divides a span into about ``count`` steps.

    Example:
        >>> choose_step(17.0), choose_step(3.0, least=0.0)
        (5.0, 1.0)
    """
    rough = max(span, least) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return magnitude * next(factor for factor in (1, 2, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))


def fit_linear_axis(values: Sequence[float], zero: bool = False, least: float = 0.0) -> Axis:
    """Return an axis with round ends around values (and zero), at least ``least`` long.

    Example:
        >>> [words for _, words in fit_linear_axis([11.2, 18.9]).ticks]
        ['10', '12', '14', '16', '18', '20']
    """
    low, high = min([*values, *([0.0] if zero else [])]), max([*values, *([0.0] if zero else [])])
    width = choose_step(high - low, least=max(least, 1e-6 * max(abs(low), abs(high), 1.0)))
    first, last = math.floor(low / width + 1e-9), math.ceil(high / width - 1e-9)
    last = max(last, first + 1)
    ticks = tuple((index * width, f"{index * width + 0.0:.6g}") for index in range(first, last + 1))
    return Axis(first * width, last * width, ticks)


def fit_logarithmic_axis(values: Sequence[float]) -> Axis:
    """Return a logarithmic scale of whole powers of ten around positive values.

    Example:
        >>> [words for _, words in fit_logarithmic_axis([0.002, 0.05]).ticks]
        ['0.001', '0.01', '0.1']
    """
    first, last = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
    last = max(last, first + 1)
    every = max(1, math.ceil((last - first) / 6))
    ticks = tuple((10.0**index, f"{10.0**index:g}") for index in range(first, last + 1, every))
    return Axis(10.0**first, 10.0**last, ticks, log=True)
