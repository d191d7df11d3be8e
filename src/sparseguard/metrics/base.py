"""Interface of a per-image metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Compute = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
Direction = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A per-image score of reconstructions, and how it is printed.

    Args:
        compute: from reconstructions and originals ``(n, c, h, w)`` in [0, 1], the pool ``(m, c, h, w)`` of candidate
            images, and each original's index in the pool ``(n,)`` (None: the originals join the pool), to ``(n,)``
            float32.
        label: name in tables and charts.
        unit: of the score; empty for a number without one.
        digits: decimals in tables.
        direction: whether a higher or a lower value means that more leaked.
        summary: one line for tables and help.
    """

    compute: Compute
    label: str
    summary: str
    unit: str = ""
    digits: int = 3
    direction: Direction = "higher"

    def leakage(self, value: float) -> float:
        """Return the value with the sign that makes higher mean more leaked."""
        return value if self.direction == "higher" else -value
