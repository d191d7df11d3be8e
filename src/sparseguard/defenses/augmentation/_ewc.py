"""Elastic weight consolidation: weights that mattered until now are held where they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def diagonal_fisher(model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]) -> dict[str, Tensor]:
    r"""Return the diagonal of the Fisher information of every parameter that learns, by its name.

    .. math:: F_i = \frac1n \sum_{(x, y)} \Big( \frac{\partial \log p(y | x)}{\partial \theta_i} \Big)^2

    One image at a time, so that it holds for any layer that treats the images of a batch apart.

    Args:
        model: in evaluation mode; its gradients are left alone.
        images: in [0, 1], on the model's device.
        labels: drawn from the model's own answers for the Fisher information, the given ones for the empirical one.
    """
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found = {name: torch.zeros_like(weight) for name, weight in learning.items()}
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        loss = F.cross_entropy(model(image), label)
        slopes = torch.autograd.grad(loss, list(learning.values()), allow_unused=True)
        for name, slope in zip(learning, slopes, strict=True):
            if slope is not None:
                found[name].addcmul_(slope, slope, value=1 / len(images))
    return found


def consolidation(model: nn.Module, fisher: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> Tensor:
    r"""Return :math:`\frac12 \sum_i F_i (\theta_i - \theta^*_i)^2` with the weights ``anchor`` as theta star."""
    weights = dict(model.named_parameters())
    return torch.stack([(fisher[name] * (weights[name] - anchor[name]).square()).sum() for name in fisher]).sum() / 2
