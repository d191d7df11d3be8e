"""Queries of an attacker: transformed and mixed auxiliary images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.attacks.access import ModelAccess
from sparseguard.types import ImageSet

SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))


def shift(images: Float[Tensor, "n c h w"], down: int, right: int) -> Float[Tensor, "n c h w"]:
    """Move images by whole pixels; the border repeats."""
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    h, w = images.shape[2:]
    return padded[:, :, 1 - down : 1 - down + h, 1 - right : 1 - right + w]


def training_queries(images: ImageSet, copies: int, mixes: int = 0) -> Iterator[Float[Tensor, "n c h w"]]:
    """Yield versions of the auxiliary images: plain, mirrored, then shifted by a pixel and so on; then mixed.

    The attacker may query any image, so these are free. Mirrored and shifted copies show more correlations of pixels;
    they need not belong to the same class. Mixed images are halves of two images side by side or one above the other,
    which break correlations across the halves. The versions are the same for every attack.

    Args:
        images: the auxiliary images.
        copies: number of versions, the plain images among them.
        mixes: number of further, mixed versions.
    """
    plain = images.images
    for copy in range(copies):
        down, right = SHIFTS[(copy // 2) % len(SHIFTS)]
        moved = shift(plain, down, right)
        yield moved.flip(3) if copy % 2 else moved
    for mix in range(mixes):
        yield mix_halves(plain, mix)


def mix_halves(images: Float[Tensor, "n c h w"], number: int) -> Float[Tensor, "n c h w"]:
    """Replace one half of every image by that of another; even numbers the right half, odd ones the lower."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(number))
    h, w = images.shape[2:]
    mixed = images.clone()
    if number % 2:
        mixed[:, :, h // 2 :] = images[order, :, h // 2 :]
    else:
        mixed[:, :, :, w // 2 :] = images[order, :, :, w // 2 :]
    return mixed


def is_stochastic(access: ModelAccess, images: ImageSet) -> bool:
    """Return whether two observations of the same images differ."""
    subset = images.select(torch.arange(min(8, len(images))))
    first, second = access.observe(subset).features, access.observe(subset).features
    return not torch.allclose(first, second, rtol=1e-4, atol=1e-5 * float(first.std()))
