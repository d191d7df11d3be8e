"""Lower bound on the error of any attacker through additive noise, for a known pool of images as prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.numerics.psnr import mse_to_psnr

Noise = Literal["gaussian", "laplace"]
CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class PoolBound:
    """Bounds from the posterior over a pool.

    Args:
        mse: the mean squared error of the posterior mean, per pixel, averaged over pool and noise: no attacker's mean
            error over the pool is lower.
        mse_error: its Monte-Carlo standard error.
        psnr_of_mse: ``mse`` in dB: no attacker's mean error is better than this.
        mean_psnr: mean over images of the posterior mean's own PSNR, in dB; a mean of decibels, and no bound.
        identified: how often the most probable image is the right one: no attacker identifies more.
        identified_error: its Monte-Carlo standard error.
        pool: images in the pool.
        draws: observations drawn of each.
    """

    mse: float
    mse_error: float
    psnr_of_mse: float
    mean_psnr: float
    identified: float
    identified_error: float
    pool: int
    draws: int


@torch.no_grad()
def compute_pool_bound(
    features: Float[Tensor, "n d"],
    images: Float[Tensor, "k *image"],
    *,
    noise: Noise,
    scale: float,
    draws: int = 4,
    queries: int = 1,
    seed: int = 0,
) -> PoolBound:
    r"""Bound what any attacker gets from noisy features of images from a pool that it knows completely.

    Image i is drawn uniformly from the pool, and :math:`y = f_i + \epsilon` is observed (``queries`` times, with
    fresh noise). The posterior is :math:`p(j \mid y) \propto \exp(-\|y - f_j\|_2^2 / 2\sigma^2)`, or :math:`\exp(
    -\|y - f_j\|_1 / b)`. Its mean image has the least mean squared error, and its mode is right most often, of all
    functions of y. So both bound every attacker's average over this pool, also an attacker that has the whole pool;
    an attacker that knows less is further off. They say nothing about an average over other images.

    Args:
        features: ``(n, d)``, without the noise.
        images: ``(n, ...)``, the pool.
        noise: ``gaussian`` or ``laplace``, independent in every feature.
        scale: sigma, or Laplace's b.
        draws: observations of each image.
        queries: noisy answers an observation consists of.
        seed: of the noise.

    Raises:
        ValueError: for numbers out of range, or features and images that differ in number.

    Source: Bayes estimator under squared loss; the noise mechanism's likelihood.

    Example:
        >>> import torch
        >>> from sparseguard.bounds import compute_pool_bound
        >>> images = torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> compute_pool_bound(images.flatten(1), images, noise="gaussian", scale=0.01).identified
        1.0
    """
    if not 0 < scale < math.inf or draws < 1 or queries < 1:
        raise ValueError(f"scale must be above 0, draws and queries at least 1; got {scale}, {draws}, {queries}.")
    if len(features) != len(images) or len(images) == 0:
        raise ValueError(f"{len(images)} images need as many features, got {len(features)}.")
    clean, pixels = features.double(), images.double().flatten(1)
    generator = torch.Generator().manual_seed(seed)
    errors, right = list[Tensor](), list[Tensor]()
    for index in torch.arange(len(clean)).repeat(draws).split(CHUNK):
        posterior = torch.softmax(_sample_log_likelihood(clean, index, noise, scale, queries, generator), dim=1)
        errors.append((posterior @ pixels - pixels[index]).square().mean(1))
        right.append((posterior.argmax(1) == index).double())
    error, hit = torch.cat(errors), torch.cat(right)
    return PoolBound(
        mse=float(error.mean()),
        mse_error=_standard_error(error, draws),
        psnr_of_mse=float(mse_to_psnr(error.mean())),
        mean_psnr=float(mse_to_psnr(error).mean()),
        identified=float(hit.mean()),
        identified_error=_standard_error(hit, draws),
        pool=len(clean),
        draws=draws,
    )


def _sample_log_likelihood(
    clean: Tensor, index: Tensor, noise: Noise, scale: float, queries: int, generator: torch.Generator
) -> Float[Tensor, "k n"]:
    """Draw observations of the images at ``index`` and return each pool image's log-likelihood, up to a constant."""
    total = clean.new_zeros(len(index), len(clean))
    for _ in range(queries):
        noisy = clean[index] + scale * draw_standard_noise(noise, (len(index), clean.shape[1]), generator)
        if noise == "gaussian":
            # |y|^2 is the same for all images of the pool
            total += (noisy @ clean.T - clean.square().sum(1) / 2) / scale**2
        else:
            total -= torch.cdist(noisy, clean, p=1) / scale
    return total


def draw_standard_noise(noise: Noise, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw N(0, 1), or Laplace noise of scale 1 (variance 2), in float64."""
    if noise == "gaussian":
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    uniform = torch.rand((2, *shape), generator=generator, dtype=torch.float64).clamp_min(1e-300)
    return uniform[0].log() - uniform[1].log()


def _standard_error(values: Tensor, draws: int) -> float:
    """Return the standard error over the noise; the pool is fixed, so its images add none."""
    if draws == 1:
        return float(values.std(correction=0)) / math.sqrt(len(values))
    within = values.view(draws, -1).var(0)
    return float((within.mean() / len(values)).sqrt())
