"""Which images an attacker sends through the leak to learn from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.attacks.access import ModelAccess
from sparseguard.types import ImageSet

SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))


def shifted(images: Float[Tensor, "n c h w"], down: int, right: int) -> Float[Tensor, "n c h w"]:
    """Move images by whole pixels; the border repeats."""
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    h, w = images.shape[2:]
    return padded[:, :, 1 - down : 1 - down + h, 1 - right : 1 - right + w]


def training_queries(images: ImageSet, copies: int, mixes: int = 0) -> Iterator[Float[Tensor, "n c h w"]]:
    """Yield versions of the attacker's images: as they are, mirrored, then shifted by a pixel and so on; then mixed.

    The attacker may query any image, so these cost it nothing. Mirrored and shifted copies of each image teach it what
    pixels go together; they need not belong to the same class. Mixed ones are halves of two images side by side or one
    above the other, which parts what always comes together. They are the same for every attack.

    Args:
        images: the attacker's images.
        copies: how many versions, the images themselves among them.
        mixes: how many more versions of mixed images.
    """
    plain = images.images
    for copy in range(copies):
        down, right = SHIFTS[(copy // 2) % len(SHIFTS)]
        moved = shifted(plain, down, right)
        yield moved.flip(3) if copy % 2 else moved
    for mix in range(mixes):
        yield mixed(plain, mix)


def mixed(images: Float[Tensor, "n c h w"], number: int) -> Float[Tensor, "n c h w"]:
    """Replace one half of every image by that of another; even numbers the right half, odd ones the lower."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(number))
    h, w = images.shape[2:]
    made = images.clone()
    if number % 2:
        made[:, :, h // 2 :] = images[order, :, h // 2 :]
    else:
        made[:, :, :, w // 2 :] = images[order, :, :, w // 2 :]
    return made


def is_stochastic(access: ModelAccess, images: ImageSet) -> bool:
    """Whether two observations of the same images differ."""
    few = images.select(torch.arange(min(8, len(images))))
    first, second = access.observe(few).features, access.observe(few).features
    return not torch.allclose(first, second, rtol=1e-4, atol=1e-5 * float(first.std()))
