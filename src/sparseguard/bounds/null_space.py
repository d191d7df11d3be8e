"""Null space of a network's first layers, as long as they are affine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.bounds.base import AuxiliaryImages, mean_psnr
from sparseguard.numerics.ridge import fit_ridge_leave_one_out
from sparseguard.types import Images

AFFINE_ERROR = 1e-4
"""Largest relative deviation from an affine map, on images, that float32 may leave."""

PROBES = 8
"""Images of the first, quick check."""

RANK_TOLERANCE = 1e-5
"""Singular values below this fraction of the largest count as 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AffineMap:
    """The first layers of a network as a matrix, with its singular value decomposition, in float64.

    Args:
        weights: ``(m, d)``.
        offset: ``(m,)``, the output for an image of zeros.
        singular: ``(rank,)``, the singular values that count.
        rows: ``(rank, d)``, an orthonormal basis of the row space.
    """

    weights: Float[Tensor, "m d"]
    offset: Float[Tensor, " m"]
    singular: Float[Tensor, " rank"]
    rows: Float[Tensor, "rank d"]

    @property
    def rank(self) -> int:
        """Number of independent rows."""
        return len(self.singular)

    @property
    def complete(self) -> bool:
        """Whether the null space is empty, so that images can be computed from the outputs."""
        return self.rank == self.rows.shape[1]

    @property
    def condition(self) -> float:
        """Largest over smallest singular value that counts: how much rounding or noise grows; 1 for a map of zeros."""
        return float(self.singular[0] / self.singular[-1]) if self.rank else 1.0


@torch.no_grad()
def fit_affine_map(function: Callable[[Tensor], Tensor], images: Images) -> AffineMap | None:
    """Return a function of images as a matrix, or None when it is not affine on images (or adds noise).

    The matrix is read off pixel by pixel, from differences that leave the offset's rounding out, and then checked: on
    ``images``, and on images of uniform noise.

    Args:
        function: from ``(n, c, h, w)`` in [0, 1] to ``(n, ...)``.
        images: to check with.
    """
    shape = images.shape[1:]
    d = int(shape.numel())
    subset = images[:PROBES]
    noise = torch.rand(subset.shape, generator=torch.Generator().manual_seed(0), dtype=images.dtype)
    if not _agree(function((subset + noise) / 2), (function(subset) + function(noise)) / 2):
        return None
    units = torch.eye(d, dtype=images.dtype).view(d, *shape)
    columns = (function(units).flatten(1).double() - function(-units).flatten(1).double()) / 2
    offset = function(torch.zeros_like(subset)).flatten(1).double().mean(0)
    for probe in (images, noise):
        if not _agree(function(probe).flatten(1), probe.double().flatten(1) @ columns + offset):
            return None
    _, singular, rows = torch.linalg.svd(columns.T, full_matrices=False)
    counts = singular > RANK_TOLERANCE * singular.amax()
    return AffineMap(weights=columns.T, offset=offset, singular=singular[counts], rows=rows[counts])


@dataclass(frozen=True, kw_only=True, eq=False)
class NullSpace:
    """Images split by what the first layers preserve and lose.

    Args:
        hidden: fraction of the images' energy, centered on the attacker's mean image, that lies in the null space.
        from_mean: ``(n, c, h, w)``, the exact row-space part, the null part that of the attacker's mean image.
        estimated: the exact row-space part, the null part by ridge regression on it, learned on auxiliary images.
    """

    hidden: float
    from_mean: Images
    estimated: Images

    def psnr(self, images: Images) -> tuple[float, float]:
        """Return the mean PSNR of ``from_mean`` and of ``estimated``, in dB."""
        return mean_psnr(self.from_mean, images), mean_psnr(self.estimated, images)


@torch.no_grad()
def split_null_space(mapping: AffineMap, auxiliary: AuxiliaryImages, images: Images) -> NullSpace:
    r"""Split images into the part the map preserves and the part it loses, :math:`x = V V^T x + (I - V V^T) x`.

    Every attacker who knows the weights has the first part exactly, up to rounding times the condition number. No
    attacker sees the second; auxiliary images give its best affine estimate. A nonlinear attacker may estimate it
    better.

    Args:
        mapping: from `fit_affine_map`.
        auxiliary: the attacker's images, ``(k, c, h, w)``.
        images: ``(n, c, h, w)``.
    """
    rows, shape = mapping.rows, images.shape
    known, private = auxiliary.double().flatten(1), images.double().flatten(1)
    mean = known.mean(0)
    coordinates = private @ rows.T
    exact = coordinates @ rows
    centered = private - mean
    null = centered - (centered @ rows.T) @ rows
    hidden = float(null.square().sum() / centered.square().sum().clamp_min(torch.finfo(torch.float64).tiny))
    from_mean = exact + mean - (rows @ mean) @ rows
    if mapping.complete or not mapping.rank:
        estimated = from_mean
    else:
        own = known @ rows.T
        guess = fit_ridge_leave_one_out(own, known - own @ rows)(coordinates)
        estimated = exact + guess - (guess @ rows.T) @ rows
    return NullSpace(
        hidden=hidden,
        from_mean=from_mean.view(shape).to(images.dtype),
        estimated=estimated.view(shape).to(images.dtype),
    )


def _agree(values: Tensor, expected: Tensor) -> bool:
    return bool((values.double() - expected.double()).norm() <= AFFINE_ERROR * expected.double().norm())
