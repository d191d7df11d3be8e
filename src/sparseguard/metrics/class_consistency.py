"""Whether the class of an image is still recognizable in its reconstruction."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

CHUNK = 512


@torch.no_grad()
def recognized(
    evaluator: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return 1 for each image that a classifier the attacker never had puts into its original's class, else 0.

    Higher means more was leaked; the evaluator's accuracy on real images is about the most to expect, and the largest
    class's share is chance. A classifier can be sure of an image in which nobody sees the class, so ask two.

    Args:
        evaluator: in eval mode, from images in [0, 1] to logits ``(n, classes)``.
        images: what an attack made.
        labels: the originals' classes.
    """
    device = next((parameter.device for parameter in evaluator.parameters()), torch.device("cpu"))
    scores = [
        (evaluator(batch.to(device)).argmax(1).cpu() == wanted).float()
        for batch, wanted in zip(images.split(CHUNK), labels.cpu().split(CHUNK), strict=True)
        if len(batch)
    ]
    return torch.cat(scores) if scores else torch.zeros(0)
