"""Measures of dependence between two sets of values on one batch: HSIC, COCO and distance correlation.

Kernels are ``(m, m)`` over the m images of a batch, vectors one row an image. All functions are differentiable.
Values that rounding cannot tell from 0 count as 0 and get no gradient, so coinciding rows do no harm.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.numerics.distances import squared_distances_within

Rows = Float[Tensor, "m d"]
Kernel = Float[Tensor, "m m"]
Value = Float[Tensor, ""]

EPSILON = 1e-5
"""Of `normalized_hsic`, as in BiDO's released code."""


def gaussian_kernel(x: Rows, sigma: float) -> Kernel:
    r"""Return :math:`\exp(-\|x_i - x_j\|^2 / (2 \sigma^2 d))`; d, the number of values, makes sigma a scale a value."""
    return (-squared_distances_within(x) / (2 * sigma**2 * x.shape[1])).exp()


def linear_kernel(x: Rows) -> Kernel:
    """Return the inner products of all pairs of rows."""
    return x @ x.T


def center(k: Kernel) -> Kernel:
    """Return ``H k H`` with ``H = I - 1/m``: rows and columns sum to 0."""
    return k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()


def hsic(kx: Kernel, ky: Kernel) -> Value:
    r"""Return the biased estimator :math:`(m-1)^{-2} \operatorname{tr}(K H L H)`; 0 for a single image.

    Source: Gretton et al., Measuring statistical dependence with Hilbert-Schmidt norms, ALT 2005, definition 2.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> float(hsic(linear_kernel(x), linear_kernel(x)))
        4.0
    """
    return (center(kx) * ky).sum() / max(len(kx) - 1, 1) ** 2


def normalized_hsic(kx: Kernel, ky: Kernel, epsilon: float = EPSILON) -> Value:
    r"""Return :math:`\operatorname{tr}(R_x R_y)` with :math:`R = K' (K' + \epsilon m I)^{-1}` and `K' = H K H`.

    It lies between 0 and m - 1, and estimates no constant of the distribution: it grows with the batch. In single
    precision it is meant for kernels whose entries are about 1 at most.

    Source: released code of Peng et al. (BiDO), KDD 2022, which centers one side only, `K' = K H`. The result is the
    same: both forms have the same `H R`, `R_x R_y` has the trace of `H R_x H R_y`, and the symmetric one can be
    solved more precisely. No inverse is formed.
    """
    rx, ry = (_smooth(center(k), epsilon * len(k)) for k in (kx, ky))
    return (rx * ry.T).sum()


def coco(kx: Kernel, ky: Kernel) -> Value:
    r"""Return the constrained covariance :math:`\sqrt{\|K' L'\|_2} / m`, the norm being the largest singular value.

    Source: Gretton et al., Kernel constrained covariance for dependence measurement, AISTATS 2005. The released code of
    Peng et al. has the Frobenius norm in its place.

    Raises:
        torch.linalg.LinAlgError: when a kernel is not finite.
    """
    return _root(torch.linalg.matrix_norm(center(kx) @ center(ky), ord=2)) / len(kx)


def distance_correlation(x: Rows, z: Float[Tensor, "m e"]) -> Value:
    """Return the distance correlation of rows, in [0, 1]; 0 when one of them is constant.

    Source: Szekely, Rizzo, Bakirov, Annals of Statistics 2007, definition 5 (the V-statistic, of distances that are
    not squared).

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [5.0]])
        >>> round(float(distance_correlation(x, 3 - 2 * x)), 5)
        1.0
    """
    a, b = (_normalize(center(_root(squared_distances_within(rows)))) for rows in (x, z))
    return _root((a * b).sum())


def _smooth(k: Tensor, ridge: float) -> Tensor:
    """Return ``(k + ridge I)^-1 k``; a kernel that is not finite gives a result that is not."""
    eye = torch.eye(len(k), dtype=k.dtype, device=k.device)
    solved: Tensor = torch.linalg.solve_ex(k + ridge * eye, k)[0]
    return solved


def _root(values: Tensor) -> Tensor:
    zero = values <= 0
    return values.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)


def _normalize(matrix: Tensor) -> Tensor:
    size: Tensor = torch.linalg.matrix_norm(matrix)
    return matrix / size.masked_fill(size == 0, 1)
