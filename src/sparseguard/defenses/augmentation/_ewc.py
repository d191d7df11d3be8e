"""Elastic weight consolidation: a penalty on changes of important weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def compute_fisher_diagonal(
    model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"]
) -> dict[str, Tensor]:
    r"""Return the diagonal of the Fisher information of every trainable parameter by its name.

    .. math:: F_i = \frac1n \sum_{(x, y)} \Big( \frac{\partial \log p(y | x)}{\partial \theta_i} \Big)^2

    Images are processed one by one, so it is right for every layer that does not mix the images of a batch.

    Args:
        model: in evaluation mode; its gradients do not change.
        images: in [0, 1], on the model's device.
        labels: drawn from the model's own outputs for the Fisher information; true labels for the empirical one.
    """
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    fisher = {name: torch.zeros_like(weight) for name, weight in trainable.items()}
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        loss = F.cross_entropy(model(image), label)
        gradients = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
        for name, gradient in zip(trainable, gradients, strict=True):
            if gradient is not None:
                fisher[name].addcmul_(gradient, gradient, value=1 / len(images))
    return fisher


def compute_consolidation(model: nn.Module, fisher: Mapping[str, Tensor], anchor: Mapping[str, Tensor]) -> Tensor:
    r"""Return :math:`\frac12 \sum_i F_i (\theta_i - \theta^*_i)^2` with the weights ``anchor`` as theta star."""
    weights = dict(model.named_parameters())
    return torch.stack([(fisher[name] * (weights[name] - anchor[name]).square()).sum() for name in fisher]).sum() / 2
