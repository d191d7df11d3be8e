"""Pictures of a prior's samples, which show a bad prior."""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sparseguard.core.atomic_io import write_file
from sparseguard.core.seeding import derive
from sparseguard.generators.base import Prior

SAMPLES = "samples.png"
"""The picture beside a prior's weights."""
TILE, GAP, BATCH = 84, 2, 32
"""Least side of a tile, about, and gap between tiles, in pixels; images made at once."""
COUNT, TRUNCATION = 64, 0.7
"""Number of samples, and their truncation, in the picture beside a prior's weights."""


@torch.no_grad()
def draw_samples(
    prior: Prior, count: int = COUNT, *, truncation: float = TRUNCATION, seed: int = 0
) -> Float[Tensor, "n c h w"]:
    """Return images of random latents in [0, 1], clipped, on the CPU.

    Args:
        prior: the generator.
        count: how many; a smaller number gives the first of a larger one.
        truncation: factor of w's distance to its mean.
        seed: of the latents.
    """
    # one z after another, because torch draws a few numbers differently from many
    source = torch.Generator().manual_seed(derive(purpose="samples of a prior", seed=seed))
    z = torch.cat([prior.latents(1, source) for _ in range(count)])
    images = [prior.synthesis(prior.mapping(batch, truncation=truncation)) for batch in z.split(BATCH)]
    return torch.cat(images).clamp(0, 1).cpu()


def encode_grid(images: Float[Tensor, "n c h w"]) -> bytes:
    """Return a PNG with the images row by row in a square, white between them, small ones enlarged pixel by pixel.

    Example:
        >>> from io import BytesIO
        >>> from PIL import Image
        >>> Image.open(BytesIO(encode_grid(torch.zeros(5, 1, 28, 28)))).size  # 3 columns, 2 rows, tiles of 84
        (260, 174)
    """
    count, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    factor = max(1, round(TILE / max(height, width)))
    down, right = factor * height + GAP, factor * width + GAP
    sheet = torch.full((channels, rows * down + GAP, columns * right + GAP), 255, dtype=torch.uint8)
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    for number, image in enumerate(pixels):
        top, left = GAP + number // columns * down, GAP + number % columns * right
        tile = image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        sheet[:, top : top + factor * height, left : left + factor * width] = tile
    array = sheet[0].numpy() if channels == 1 else sheet.permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png", optimize=True)
    return file.getvalue()


def write_samples(
    path: Path, prior: Prior, count: int = COUNT, *, truncation: float = TRUNCATION, seed: int = 0
) -> None:
    """Write a picture of a prior's samples.

    Raises:
        StoreError: when it cannot be written.
    """
    picture = encode_grid(draw_samples(prior, count, truncation=truncation, seed=seed))
    write_file(path, lambda aside: _write_bytes(aside, picture))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
