"""Peak signal-to-noise ratio of mean squared errors, for a data range of 1."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

PSNR_CAP = 100.0
"""Decibels of an exact copy, so that it has a value that can be averaged."""


def mse_to_psnr(error: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    r"""Return :math:`10 \log_{10}(1 / \mathrm{MSE})` in dB, at most 100.

    Example:
        >>> import torch
        >>> mse_to_psnr(torch.tensor([0.01, 0.0]))
        tensor([ 20., 100.])
    """
    psnr: Tensor = -10 * torch.log10(error.clamp_min(10 ** (-PSNR_CAP / 10)))
    return psnr
