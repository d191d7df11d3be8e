"""Per-image fidelity, by torchmetrics."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

Images = Float[Tensor, "n c h w"]
PSNR_CAP = 100.0
CHUNK = 1000


def psnr(reconstructions: Images, originals: Images) -> Float[Tensor, " n"]:
    r"""Return :math:`10 \log_{10}(1 / \mathrm{MSE})` of each image, in dB; data range 1.

    Higher is closer. Capped at 100 dB (an MSE of 1e-10), so that an exact copy has a value that can be averaged; the
    mean over images is a mean of decibels, not the decibels of a mean.

    Example:
        >>> import torch
        >>> from sparseguard.metrics import psnr
        >>> psnr(torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.5)).round(decimals=3)
        tensor([20.])
    """
    scores: Tensor = peak_signal_noise_ratio(
        reconstructions, originals, data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    return scores.clamp_max(PSNR_CAP)


def ssim(reconstructions: Images, originals: Images) -> Float[Tensor, " n"]:
    """Return the structural similarity of each image, at most 1; data range 1.

    Higher is closer. Wang et al. 2004 as in torchmetrics: Gaussian window of sigma 1.5 (11 x 11), k1 = 0.01,
    k2 = 0.03, mean over all pixels with reflected borders.
    """
    scores = []
    for ours, theirs in zip(reconstructions.split(CHUNK), originals.split(CHUNK), strict=True):
        part = structural_similarity_index_measure(ours, theirs, data_range=1.0, reduction="none")
        scores.append(part if isinstance(part, Tensor) else part[0])
    return torch.cat(scores).reshape(-1)
