"""What a per-image metric is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Compute = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A per-image score; higher means more was leaked.

    Args:
        compute: from reconstructions and originals ``(n, c, h, w)``, the pool of images to be told apart
            ``(m, c, h, w)``, and each original's place in the pool ``(n,)`` (None where it is not in it), to
            ``(n,)`` float32.
        unit: of the score.
        summary: one line for tables and help.
    """

    compute: Compute
    unit: str
    summary: str
