"""Re-identification of originals among candidate images by nearest pixels."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from sparseguard.core.out_of_core import MIB, row_chunks
from sparseguard.metrics.base import Metric
from sparseguard.types import as_unit_float

CHUNK = 512
POOL_BYTES = 4 * MIB
"""Of the pool, worked on at once; eightfold in float64 where it is bytes."""


def reidentification_at_1(
    preds: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    pool: Num[Tensor, "m c h w"],
    pool_index: Int[Tensor, " n"] | None,
) -> Float[Tensor, " n"]:
    """Return id@1 of each image: 1 when no image of the pool is nearer to the reconstruction than its own original.

    Distances are Euclidean in pixels. Where k images of the pool are exactly as near as the original (copies of it),
    the score is 1 / (1 + k), the chance of guessing right among them. Chance level is 1 / N, where N is the pool's
    size, or one more when the originals are not in it.

    Args:
        preds: reconstructions in [0, 1].
        target: their originals.
        pool: candidate images; float in [0, 1], or uint8 0-255, which is read in chunks.
        pool_index: each original's index in the pool, or of the image whose place it takes; None when it joins the
            pool.
    """
    candidates = pool.flatten(1)
    squares = [_in_double(candidates[rows]).square().sum(1) for rows in row_chunks(candidates, POOL_BYTES)]
    norms = torch.cat(squares or [torch.zeros(0, dtype=torch.float64)])
    rounding = 1e-9 * (1 + norms.max() if len(norms) else 1)
    nearer = torch.zeros(len(preds), dtype=torch.bool)
    ties = torch.zeros(len(preds), dtype=torch.int64)
    for rows in row_chunks(candidates, POOL_BYTES):
        others = _in_double(candidates[rows])
        for index in torch.arange(len(preds)).split(CHUNK):
            images, originals = (pixels[index].flatten(1).double() for pixels in (preds, target))
            # |pool|^2 - 2 <reconstruction, pool>: the squared distance but for a term shared by all candidates
            distance = norms[rows] - 2 * images @ others.T  # (chunk, m)
            reference = originals.square().sum(1) - 2 * (images * originals).sum(1)
            margin = distance - reference.unsqueeze(1)
            if pool_index is not None:
                in_chunk = (pool_index[index] >= rows.start) & (pool_index[index] < rows.stop)
                margin[in_chunk, pool_index[index][in_chunk] - rows.start] = torch.inf
            nearer[index] |= (margin < -rounding).any(1)
            ties[index] += (margin.abs() <= rounding).sum(1)
    return torch.where(nearer, 0.0, 1.0 / (1.0 + ties)).float()


def _in_double(pixels: Tensor) -> Tensor:
    return as_unit_float(pixels).double()


REIDENTIFICATION = Metric(
    compute=reidentification_at_1,
    label="id@1",
    summary="whether the reconstruction is nearest to its own original among N private images",
)
