"""Per-image fidelity, by torchmetrics."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from sparseguard.metrics.base import Metric
from sparseguard.numerics.psnr import PSNR_CAP
from sparseguard.types import Images

CHUNK = 1000


def psnr(preds: Images, target: Images) -> Float[Tensor, " n"]:
    r"""Return :math:`10 \log_{10}(1 / \mathrm{MSE})` of each image, in dB; data range 1.

    Higher is closer. Capped at 100 dB (an MSE of 1e-10), so that an exact copy has a value that can be averaged; the
    mean over images is a mean of decibels, not the decibels of a mean.

    Args:
        preds: reconstructions in [0, 1].
        target: their originals.

    Example:
        >>> import torch
        >>> from sparseguard.metrics import psnr
        >>> psnr(torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.5)).round(decimals=3)
        tensor([20.])
    """
    scores: Tensor = peak_signal_noise_ratio(preds, target, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return scores.clamp_max(PSNR_CAP)


def ssim(preds: Images, target: Images) -> Float[Tensor, " n"]:
    """Return the structural similarity of each image, at most 1; data range 1.

    Higher is closer. Wang et al. 2004 as in torchmetrics: Gaussian window of sigma 1.5 (11 x 11), k1 = 0.01,
    k2 = 0.03, mean over all pixels with reflected borders.

    Args:
        preds: reconstructions in [0, 1].
        target: their originals.
    """
    scores = []
    for images, originals in zip(preds.split(CHUNK), target.split(CHUNK), strict=True):
        values = structural_similarity_index_measure(images, originals, data_range=1.0, reduction="none")
        scores.append(values if isinstance(values, Tensor) else values[0])
    return torch.cat(scores).reshape(-1)


PSNR = Metric(
    compute=lambda preds, target, pool, pool_index: psnr(preds, target),  # noqa: ARG005
    label="PSNR",
    unit="dB",
    digits=2,
    summary="peak signal-to-noise ratio, data range 1, at most 100",
)
SSIM = Metric(
    compute=lambda preds, target, pool, pool_index: ssim(preds, target),  # noqa: ARG005
    label="SSIM",
    summary="structural similarity, data range 1, Gaussian window of sigma 1.5",
)
