"""MID, a variational information bottleneck at the cut."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sparseguard.defenses.base import Defense, State
from sparseguard.settings import settings
from sparseguard.stages import Blueprint, Randomized, Shape, StagedModel
from sparseguard.types import Step

SILENT = 1e-3
"""Noise below this share of the means' spread over images is taken for none."""


@settings
class MutualInformationDefense(Defense):
    r"""Release a Gaussian sample around a learned mean, and pay for every nat it tells of the image.

    .. math:: z = \mu(x) + s(x) \odot e, \quad e \sim N(0, I), \quad s = \mathrm{softplus}(a - 5)

    .. math:: L = \mathrm{CE} + \beta \, \mathrm{mean}_x \, \mathrm{KL}(N(\mu, s^2) \,\|\, N(0, I)), \quad
        \mathrm{KL} = \tfrac12 \sum_k (\mu_k^2 + s_k^2 - 1 - 2 \log s_k)

    A dense layer behind the stage that leaks gives mu and a. The sample z leaks in that stage's place, at k instead of
    d values; it is drawn anew at every query, in training and afterwards. The mean KL is an upper bound on the mutual
    information of image and z.

    Args:
        beta: weight of the KL divergence, loss per nat; sensible from 1e-4 to 0.1.
        dimension: values released, k; absent: half of those that leaked without the defense.

    Source: Wang, Zhang, Jia (AAAI 2021), "Improving Robustness to Model Inversion Attacks via Mutual Information
    Regularization"; sizes and the shift of 5 as in the authors' code (beta 0.003 for VGG16 on CelebA).

    Differs: the bottleneck sits at whichever tap is under attack, not only before the classifier, and where that tap is
    the raw output of a dense layer, the backbone's nonlinearity follows z. Sampling goes on after training.

    Limits: whoever may ask often averages the noise away and is left with mu(x). The KL bounds the information in a
    single answer on average over images, not for any one of them, and only while the training's penalty holds it
    down on new images too. A head that reads fewer values is a smaller model, which has a share in the accuracy.

    Released code: has neither a bottleneck nor sampling. It adds half of the KL divergence between N(m, v) and N(0, 1),
    with m and v the mean and the spread of all logits of a batch (14 of 15 files; one has no such term).
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "variational information bottleneck at the tap: samples leak, KL is penalized"
    source: ClassVar[str] = "Wang et al., AAAI 2021 (MID)"
    acts_at_cut: ClassVar[bool] = True
    randomizes: ClassVar[bool] = True
    beta: Annotated[float, Field(ge=0)] = 3e-3
    dimension: Annotated[int, Field(ge=1)] | None = None

    def place(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Put the dense layer and the sampling behind the stage that leaks."""
        return blueprint.put_after_cut("statistics", self._statistics).put_after_cut("bottleneck", lambda _: Sample())

    def penalty(self, step: Step) -> Tensor:
        """Return the weighted mean KL divergence of the batch's own images."""
        divergence = divergence_in_nats(*mean_and_spread(step.outputs["statistics"][step.own]))
        return self.beta * divergence.sum() / max(len(divergence), 1)

    @torch.no_grad()
    def inactive(self, model: StagedModel, images: Tensor) -> str | None:
        """Compare the noise with the spread of the means."""
        if not {"statistics", "bottleneck"} <= set(model.stages):
            return "the model has no bottleneck"
        outputs = model.outputs(images)
        mean, spread = mean_and_spread(outputs["statistics"])
        if torch.equal(outputs["bottleneck"], mean):
            return "the bottleneck answers without noise"
        share = float(spread.mean() / mean.std(0, correction=0).mean())
        return f"the bottleneck's noise is {share:.1g} of what it hides" if share < SILENT else None

    @torch.no_grad()
    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return the mean standard deviation of the noise and the mean KL divergence in nats."""
        mean, spread = mean_and_spread(model.until(images, "statistics"))
        return {
            "bottleneck_spread": float(spread.mean()),
            "bottleneck_kl_nats": float(divergence_in_nats(mean, spread).mean()),
        }

    def _statistics(self, shape: Shape) -> nn.Module:
        d = math.prod(shape)
        k = self.dimension or max(1, d // 2)
        return nn.Sequential(nn.Flatten(), nn.Linear(d, 2 * k))


class Sample(Randomized):
    """Draw from the normal distributions whose statistics are given, anew at every query."""

    def forward(self, statistics: Tensor) -> Tensor:
        """Return ``(n, k)`` samples for statistics ``(n, 2 k)``."""
        mean, spread = mean_and_spread(statistics)
        return mean + spread * torch.randn_like(mean)

    def average(self) -> nn.Module:
        """Return the module that gives the means."""
        return Mean()


class Mean(nn.Module):
    """Give the means of the normal distributions whose statistics are given."""

    def forward(self, statistics: Tensor) -> Tensor:
        """Return ``(n, k)`` means for statistics ``(n, 2 k)``."""
        return mean_and_spread(statistics)[0]


def mean_and_spread(statistics: Tensor) -> tuple[Tensor, Tensor]:
    """Part ``(n, 2 k)`` statistics into means and standard deviations, ``(n, k)`` each."""
    mean, raw = statistics.chunk(2, dim=1)
    return mean, F.softplus(raw - 5).clamp_min(torch.finfo(raw.dtype).tiny)


def divergence_in_nats(mean: Tensor, spread: Tensor) -> Tensor:
    """Return ``(n,)``: KL divergence of N(mean, spread^2) from N(0, I), each row's dimensions summed."""
    return (mean**2 + spread**2 - 1 - 2 * spread.log()).sum(1) / 2
