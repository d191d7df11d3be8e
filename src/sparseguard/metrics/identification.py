"""Whether a reconstruction gives away which image it was made from."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 512


def identified(
    reconstructions: Float[Tensor, "n c h w"],
    originals: Float[Tensor, "n c h w"],
    pool: Float[Tensor, "m c h w"],
    own: Int[Tensor, " n"] | None,
) -> Float[Tensor, " n"]:
    """Return id@1 of each image: 1 when no image of the pool is nearer to the reconstruction than its own original.

    Distances are Euclidean in pixels. Where k images of the pool are exactly as near as the original (copies of it),
    the score is 1 / (1 + k), the chance of guessing right among them. Chance level is 1 / N, where N is the pool's
    size, or one more when the originals are not in it.

    Args:
        reconstructions: what an attack made.
        originals: what it was made from.
        pool: the images it has to be told apart from.
        own: the place in the pool that each original has, or takes from the image there; None when it joins the pool.
    """
    others = pool.flatten(1).double()
    norms = others.square().sum(1)
    scores = []
    for index in torch.arange(len(reconstructions)).split(CHUNK):
        ours = reconstructions[index].flatten(1).double()
        theirs = originals[index].flatten(1).double()
        # |pool|^2 - 2 <reconstruction, pool>: the squared distance but for a term shared by all candidates
        distance = norms - 2 * ours @ others.T  # (chunk, m)
        reference = theirs.square().sum(1) - 2 * (ours * theirs).sum(1)
        margin = distance - reference.unsqueeze(1)
        if own is not None:
            margin[torch.arange(len(index)), own[index]] = torch.inf
        rounding = 1e-9 * (1 + norms.max() if len(others) else 1)
        nearer = (margin < -rounding).any(1)
        ties = (margin.abs() <= rounding).sum(1)
        scores.append(torch.where(nearer, 0.0, 1.0 / (1.0 + ties)).float())
    return torch.cat(scores) if scores else torch.zeros(0)
