"""Class consistency: whether a classifier puts a reconstruction into the class of its original."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

CHUNK = 512


@torch.no_grad()
def class_consistency(
    preds: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], evaluator: nn.Module
) -> Float[Tensor, " n"]:
    """Return 1 for each image that a classifier the attacker never had puts into its original's class, else 0.

    Higher means more was leaked; the evaluator's accuracy on real images is about the most to expect, and the largest
    class's fraction is chance. A classifier can be sure of an image in which nobody sees the class, so ask two.

    Args:
        preds: reconstructions in [0, 1].
        labels: the originals' classes.
        evaluator: in eval mode, from images in [0, 1] to logits ``(n, classes)``.
    """
    device = next((parameter.device for parameter in evaluator.parameters()), torch.device("cpu"))
    scores = [
        (evaluator(images.to(device)).argmax(1).cpu() == classes).float()
        for images, classes in zip(preds.split(CHUNK), labels.cpu().split(CHUNK), strict=True)
        if len(images)
    ]
    return torch.cat(scores) if scores else torch.zeros(0)
