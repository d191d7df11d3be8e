"""MID, a variational information bottleneck at the tap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.errors import RecipeError
from sparseguard.core.staged_model import Blueprint, Builder, Randomized, Shape, StagedModel
from sparseguard.defenses.base import Defense, State
from sparseguard.types import BatchContext

SILENT = 1e-3
"""Noise below this fraction of the standard deviation of the means over images counts as none."""


@settings
class MutualInformationDefense(Defense):
    r"""Release a Gaussian sample around a learned mean, with a penalty for every nat of information on the image.

    .. math:: z = \mu(x) + s(x) \odot e, \quad e \sim N(0, I), \quad s = \mathrm{softplus}(a - 5)

    .. math:: L = \mathrm{CE} + \beta \, \mathrm{mean}_x \, \mathrm{KL}(N(\mu, s^2) \,\|\, N(0, I)), \quad
        \mathrm{KL} = \tfrac12 \sum_k (\mu_k^2 + s_k^2 - 1 - 2 \log s_k)

    A dense layer after the stage of the tap gives mu and a; on a grid of feature maps, a convolution of size 1 does, so
    that the grid stays. The sample z becomes the tap, with k instead of d values (channels of a grid); it is drawn anew
    at every query, in training and afterwards. The mean KL is an upper bound on the mutual information of image and z.
    Where the tap is the logits, the bottleneck is the input of the head, as published.

    Args:
        beta: weight of the KL divergence, loss per nat; sensible from 1e-4 to 0.1.
        dimension: values released, k, or channels of a grid; absent: half of those of the tap without the defense, or
            as many in torchvision's models, whose layers accept no other number.

    Raises:
        RecipeError: for a tap that is neither a vector nor a grid, logits of a backbone that does not name the
            input of its head, or a dimension that the next layer does not accept.

    Source: Wang, Zhang, Jia (AAAI 2021), "Improving Robustness to Model Inversion Attacks via Mutual Information
    Regularization"; sizes and the shift of 5 as in the authors' code (beta 0.003 for VGG16 on CelebA).

    Differs: the bottleneck sits at whichever tap is under attack, not only before the classifier, and where that tap is
    the raw output of a dense layer, the backbone's nonlinearity follows z. Sampling continues after training.

    Limits: repeated queries average the noise away and leave mu(x). The KL bounds the information in a single output on
    average over images, not for each image, and only if the penalty generalizes to new images. It is a sum over all
    values at the tap: on a large grid the same beta weighs more. A head that reads fewer values is a smaller model,
    which also affects the accuracy.

    Released code: has neither a bottleneck nor sampling. It adds half of the KL divergence between N(m, v) and N(0, 1),
    with m and v the mean and the standard deviation of all logits of a batch (14 of 15 files; one has no such term).
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "variational information bottleneck at the tap: samples are released, KL is penalized"
    source: ClassVar[str] = "Wang et al., AAAI 2021 (MID)"
    acts_at_tap: ClassVar[bool] = True
    randomizes: ClassVar[bool] = True
    beta: Annotated[float, Field(ge=0)] = 3e-3
    dimension: Annotated[int, Field(ge=1)] | None = None

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Insert the layer and the sampling after the tap, or before the head that gives the logits."""
        if blueprint.tap and blueprint.resolve_tap(blueprint.tap) == blueprint.stage_names()[-1]:
            return self._insert_before_head(blueprint)
        return blueprint.insert_after_tap("statistics", self._make_builder(blueprint)).insert_after_tap(
            "bottleneck", lambda _: Sample()
        )

    def penalty(self, batch: BatchContext) -> Tensor:
        """Return the weighted mean KL divergence of the batch's own images."""
        divergence = compute_divergence(*split_statistics(batch.outputs["statistics"][batch.own]))
        return self.beta * divergence.sum() / max(len(divergence), 1)

    @torch.no_grad()
    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Compare the noise with the standard deviation of the means."""
        if not {"statistics", "bottleneck"} <= set(model.stages):
            return "the model has no bottleneck"
        outputs = model.outputs(images)
        mean, std = split_statistics(outputs["statistics"])
        if torch.equal(outputs["bottleneck"], mean):
            return "the bottleneck has no noise"
        ratio = float(std.mean() / mean.std(0, correction=0).mean())
        return (
            f"the bottleneck's noise is {ratio:.1g} of the standard deviation of its means" if ratio < SILENT else None
        )

    @torch.no_grad()
    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return the mean standard deviation of the noise and the mean KL divergence in nats."""
        mean, std = split_statistics(model.forward_to(images, "statistics"))
        return {
            "bottleneck_spread": float(std.mean()),
            "bottleneck_kl_nats": float(compute_divergence(mean, std).mean()),
        }

    def _insert_before_head(self, blueprint: Blueprint) -> Blueprint:
        if "head" in blueprint.stage_names():
            with_layer = blueprint.insert_before("head", "statistics", self._make_builder(blueprint))
            return with_layer.insert_before("head", "bottleneck", lambda _: Sample())
        if "last_hidden" not in blueprint.taps:
            raise RecipeError("mid acts in front of the head, which this backbone does not name. Attack another tap.")
        inner = self.edit_blueprint(replace(blueprint, tap="last_hidden"), {})
        return replace(inner, tap=blueprint.tap, taps=blueprint.taps)

    def _make_builder(self, blueprint: Blueprint) -> Builder:
        return lambda shape: self._build_statistics(shape, fixed=blueprint.fixed_widths)

    def _build_statistics(self, shape: Shape, *, fixed: bool) -> nn.Module:
        if len(shape) == 2:
            raise RecipeError(f"mid needs a tap that is a vector or a grid, not {shape}. Attack another tap.")
        k = self.dimension or (shape[0] if fixed else max(1, shape[0] // 2))
        if fixed and k != shape[0]:
            raise RecipeError(f"mid.dimension {k}: the next layer of this model takes {shape[0]} alone. Leave it out.")
        if len(shape) == 3:
            return nn.Conv2d(shape[0], 2 * k, 1)
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], 2 * k))


class Sample(Randomized):
    """Samples of normal distributions with given statistics, drawn anew at every query."""

    def forward(self, statistics: Tensor) -> Tensor:
        """Return ``(n, k, ...)`` samples for statistics ``(n, 2 k, ...)``."""
        mean, std = split_statistics(statistics)
        return mean + std * torch.randn_like(mean)

    def average(self) -> nn.Module:
        """Return the module that gives the means."""
        return Mean()


class Mean(nn.Module):
    """Means of normal distributions with given statistics."""

    def forward(self, statistics: Tensor) -> Tensor:
        """Return ``(n, k, ...)`` means for statistics ``(n, 2 k, ...)``."""
        return split_statistics(statistics)[0]


def split_statistics(statistics: Tensor) -> tuple[Tensor, Tensor]:
    """Split ``(n, 2 k, ...)`` statistics into means and standard deviations, ``(n, k, ...)`` each."""
    mean, raw = statistics.chunk(2, dim=1)
    return mean, F.softplus(raw - 5).clamp_min(torch.finfo(raw.dtype).tiny)


def compute_divergence(mean: Tensor, std: Tensor) -> Tensor:
    """Return ``(n,)``: KL divergence of N(mean, std^2) from N(0, I), all values of an image summed."""
    return (mean**2 + std**2 - 1 - 2 * std.log()).flatten(1).sum(1) / 2
