"""The search of inversion by gradients: pixels, moved where the start is likely to be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sparseguard.attacks._descent import Descent, Evaluation, descend_to_lowest, mean_squares
from sparseguard.attacks._white_box import Rule, feature_loss
from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import AttackContext
from sparseguard.attacks.feature_inversion._searches.feature_search import (
    FEATURES,
    PIXELS,
    VAL,
    Choice,
    FeatureSearch,
)
from sparseguard.core.config import Count, NonNegative, Positive, settings
from sparseguard.types import AttackInputs, Images

WEAK = 0.3
"""Lambda starts at this fraction of the released one in the homotopy, and has risen to it after half of the steps."""


@dataclass(frozen=True, kw_only=True)
class PixelPlan:
    """Settings of one search.

    Args:
        rule: how gradients pass sparse layers.
        start: name of the image searched from.
        tv: weight of total variation.
        prior_weight: of the distance to the anchor.
        homotopy: begin with a smaller lambda.
        steps: how many.
    """

    rule: Rule
    start: str
    tv: float
    prior_weight: float
    homotopy: bool
    steps: int


@settings
class PixelSettings:
    """Settings of the search, as `GradientInversion` explains them."""

    steps: Count = 80
    lr: Positive = 0.1
    tv: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0.0, 0.3)
    prior_weight: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0.003, 0.03, 0.3, 3.0)
    probe_images: Count = 8
    probe_steps: Count = 20
    batch_size: Count = 32


class PixelSearch(FeatureSearch[PixelPlan]):
    """Search in the coordinates of `likely_errors` around the anchor.

    Args:
        options: settings of the search.
        access: to the target with its weights.
        inputs: the features of the images.
        context: the attacker's images, results of earlier attacks, seed, device.
    """

    def __init__(
        self, options: PixelSettings, access: ModelAccess, inputs: AttackInputs, context: AttackContext
    ) -> None:
        super().__init__(options, access, inputs, context)
        self.options = options
        images = context.auxiliary.train.images
        mean = images.mean(0, keepdim=True)
        constant: dict[str, Mapping[str, Images]] = {
            name: {split: value.expand(attacked.count, -1, -1, -1) for split, attacked in inputs.items()}
            for name, value in (("zeros", torch.zeros_like(mean)), ("mean image", mean))
        }
        self.starts = {**constant, **context.earlier}
        anchor = self.anchor_on(self.starts)
        self.basis = likely_errors(images, self.truth - self.starts[anchor][VAL])

    def plan(self) -> PixelPlan:
        """Choose rule and homotopy by features; then start, prior weight and total variation by pixels."""
        options = self.options
        middle = options.prior_weight[len(options.prior_weight) // 2]
        plan = PixelPlan(
            rule="unrolled", start="mean image", tv=0.0, prior_weight=0.0, homotopy=False, steps=options.probe_steps
        )
        self.probe_gradients()
        plan = self.choose([replace(plan, rule=rule) for rule in self.models], FEATURES)
        if self.models[plan.rule].sparse:
            plan = self.choose([plan, replace(plan, homotopy=True)], FEATURES)
        plan = self.choose([replace(plan, start=name, prior_weight=middle) for name in self.starts], PIXELS)
        plan = self.choose([replace(plan, prior_weight=weight) for weight in options.prior_weight], PIXELS)
        plan = self.choose([replace(plan, tv=tv) for tv in options.tv], PIXELS)
        return replace(plan, steps=options.steps)

    def describe(self, plan: PixelPlan, choice: Choice) -> dict[str, float]:  # noqa: ARG002
        """Return weights, homotopy, rule and start."""
        return {
            "tv": plan.tv,
            "prior": plan.prior_weight,
            "homotopy": float(plan.homotopy),
            f"rule: {plan.rule}": 1.0,
            f"start: {plan.start}": 1.0,
        }

    def search(self, plan: PixelPlan, split: str, indices: Tensor, depth: int) -> list[Descent]:  # noqa: ARG002
        """Search for the images of a split at ``indices``."""
        device = self.context.device
        start, anchor, features = (
            values[split][indices].to(device) for values in (self.starts[plan.start], self.anchors, self.features)
        )
        model, basis = self.models[plan.rule], self.basis.to(device)
        away = torch.linalg.solve(basis, (start - anchor).flatten(1).T).T  # y of the start, (n, pixels)
        away = away.contiguous().requires_grad_()

        def evaluate(step: int) -> Evaluation:
            factor = min(1.0, WEAK + (1 - WEAK) * 2 * step / plan.steps) if plan.homotopy else 1.0
            model.scale_lambda(factor)
            moved = anchor + (away @ basis.T).view_as(anchor)
            outside = moved - moved.clamp(0, 1)
            images = moved - outside.detach()  # clipped; the gradient passes, so that no pixel stays at the border
            loss = feature_loss(model, images, features, self.scale)
            priors = plan.tv * total_variation(images) + plan.prior_weight * mean_squares(away) + mean_squares(outside)
            return Evaluation(objective=loss + priors, loss=loss, iterate=(images,), eligible=factor == 1.0)

        optimizer = torch.optim.Adam([away], lr=self.options.lr)
        return [descend_to_lowest(evaluate, optimizer, plan.steps, start=(start,))]


def likely_errors(images: Images, errors: Float[Tensor, "m c h w"], least: float = 0.02) -> Float[Tensor, "p p"]:
    r"""Return :math:`V \sigma`: principal components of images, each as long as errors are along it.

    Args:
        images: the attacker's.
        errors: of what is to be corrected, on other images.
        least: a component is at least this long, relative to the longest, so that nothing is ruled out.
    """
    flat = images.flatten(1)
    components: Tensor = torch.linalg.eigh(torch.cov(flat.T)).eigenvectors
    lengths = (errors.flatten(1) @ components).square().mean(0).sqrt()
    return components * lengths.clamp_min(least * float(lengths.max()) + torch.finfo(lengths.dtype).tiny)


def total_variation(images: Images) -> Float[Tensor, " n"]:
    """Return each image's mean squared difference of neighboring pixels, down and across (He et al. 2019)."""
    return mean_squares(images[:, :, 1:] - images[:, :, :-1]) + mean_squares(images[:, :, :, 1:] - images[:, :, :, :-1])
