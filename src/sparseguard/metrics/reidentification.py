"""Whether a reconstruction gives away which image it was made from."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from sparseguard.core.out_of_core import MIB, row_chunks
from sparseguard.types import as_unit_float

CHUNK = 512
POOL_BYTES = 4 * MIB
"""Of the pool, worked on at once; eightfold in float64 where it is bytes."""

NOTHING = torch.zeros(0, dtype=torch.float64)


def identified(
    reconstructions: Float[Tensor, "n c h w"],
    originals: Float[Tensor, "n c h w"],
    pool: Num[Tensor, "m c h w"],
    own: Int[Tensor, " n"] | None,
) -> Float[Tensor, " n"]:
    """Return id@1 of each image: 1 when no image of the pool is nearer to the reconstruction than its own original.

    Distances are Euclidean in pixels. Where k images of the pool are exactly as near as the original (copies of it),
    the score is 1 / (1 + k), the chance of guessing right among them. Chance level is 1 / N, where N is the pool's
    size, or one more when the originals are not in it.

    Args:
        reconstructions: what an attack made.
        originals: what it was made from.
        pool: the images it has to be told apart from; float in [0, 1], or uint8 0-255, which is read in chunks.
        own: the place in the pool that each original has, or takes from the image there; None when it joins the pool.
    """
    known = pool.flatten(1)
    norms = torch.cat([_in_double(known[some]).square().sum(1) for some in row_chunks(known, POOL_BYTES)] or [NOTHING])
    rounding = 1e-9 * (1 + norms.max() if len(norms) else 1)
    nearer = torch.zeros(len(reconstructions), dtype=torch.bool)
    ties = torch.zeros(len(reconstructions), dtype=torch.int64)
    for some in row_chunks(known, POOL_BYTES):
        others = _in_double(known[some])
        for index in torch.arange(len(reconstructions)).split(CHUNK):
            ours, theirs = (images[index].flatten(1).double() for images in (reconstructions, originals))
            # |pool|^2 - 2 <reconstruction, pool>: the squared distance but for a term shared by all candidates
            distance = norms[some] - 2 * ours @ others.T  # (chunk, m)
            reference = theirs.square().sum(1) - 2 * (ours * theirs).sum(1)
            margin = distance - reference.unsqueeze(1)
            if own is not None:
                here = (own[index] >= some.start) & (own[index] < some.stop)
                margin[here, own[index][here] - some.start] = torch.inf
            nearer[index] |= (margin < -rounding).any(1)
            ties[index] += (margin.abs() <= rounding).sum(1)
    return torch.where(nearer, 0.0, 1.0 / (1.0 + ties)).float()


def _in_double(pixels: Tensor) -> Tensor:
    return as_unit_float(pixels).double()
