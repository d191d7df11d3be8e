"""Bounds on reconstruction: their values, and the units they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sparseguard.numerics.psnr import mse_to_psnr
from sparseguard.types import Images

AuxiliaryImages = Float[Tensor, "k c h w"]

Decode = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Learned decoder: from auxiliary features ``(n, d)``, their images, and features ``(m, d)`` to ``m`` images."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """Description of a bound, for tables.

    Args:
        summary: the quantity computed, in one line.
        meaning: what the number proves, and under which conditions.
        applies: to which models.
        source: of the method.
    """

    summary: str
    meaning: str
    applies: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One bound of one model.

    Args:
        name: its name in `BOUNDS`.
        where: the layer it is about, such as ``codes`` or ``stem.1``.
        applies: whether it could be computed; then ``values`` holds something.
        reason: why not; None when it applies.
        values: figures by name; a name says its unit (``_psnr``: dB, data range 1, at most 100).
        n: images the figures are means over.
        meaning: what the figures prove.

    Raises:
        ValueError: for a bound without values that gives no reason, or with both.
    """

    name: str
    where: str
    applies: bool
    reason: str | None
    values: Mapping[str, float]
    n: int
    meaning: str

    def __post_init__(self) -> None:
        """Check that there is either a value or a reason."""
        if self.applies != bool(self.values) or self.applies != (self.reason is None):
            raise ValueError(f"bound '{self.name}': needs values or a reason why there are none, not both.")


def psnr(reconstructions: Images, originals: Images) -> Float[Tensor, " n"]:
    r"""Return :math:`10 \log_{10}(1 / \mathrm{MSE})` of each image in dB; pixels clipped to [0, 1], at most 100 dB."""
    error = (reconstructions.clamp(0, 1) - originals).double().square().flatten(1).mean(1)
    return mse_to_psnr(error)


def mean_psnr(reconstructions: Images, originals: Images) -> float:
    """Return the mean of `psnr` over the images."""
    return float(psnr(reconstructions, originals).mean())
