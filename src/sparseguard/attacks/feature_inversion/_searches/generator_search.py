"""The search of inversion within a prior: latents, then the generator's features, layer after layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sparseguard.attacks._descent import Descent, mean_squares
from sparseguard.attacks._image_transforms import clip_straight_through
from sparseguard.attacks._white_box import Rule, feature_loss
from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import AttackContext
from sparseguard.attacks.feature_inversion._searches.feature_search import FEATURES, PIXELS, Choice, FeatureSearch
from sparseguard.attacks.feature_inversion._searches.latent_descent import (
    Group,
    Objective,
    Values,
    descend,
    insert_missing,
    next_features,
    render_from,
)
from sparseguard.core.config import Count, NonNegative, Positive, PositiveFraction, settings
from sparseguard.core.seeding import derive
from sparseguard.generators import Prior
from sparseguard.types import AttackInputs, Images

LEAST = 1e-6
"""Least unit of a move, so that values which are all zero can move."""


@dataclass(frozen=True, kw_only=True)
class GeneratorPlan:
    """Settings of one search.

    Args:
        rule: how gradients pass sparse layers.
        warm: start from the best earlier image.
        penalty: weight of the distance of w to its mean.
        proximal_weight: of the distance to the anchor, the best earlier image.
        steps: in w.
        layer_steps: in the features of each layer.
    """

    rule: Rule
    warm: bool
    penalty: float
    proximal_weight: float
    steps: int
    layer_steps: int


@settings
class GeneratorSettings:
    """Settings of the search, as `PriorInversion` explains them."""

    prior: str = ""
    trust_prior: bool = False
    candidates: Count = 256
    warm_steps: Annotated[int, Field(ge=0)] = 20
    steps: Count = 40
    layer_steps: Count = 20
    lr: Positive = 0.1
    layer_lr: Positive = 0.1
    penalty: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0.01,)
    proximal_weight: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0.0, 0.1, 1.0)
    move: NonNegative = 0.1
    fractions: Annotated[tuple[PositiveFraction, ...], Field(min_length=1)] = (0.1, 0.25, 0.5, 0.75, 1)
    probe_images: Count = 8
    probe_steps: Count = 12
    batch_size: Count = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Latents to start from, on the CPU.

    Args:
        w: ``(k, ...)``.
        images: ``(k, pixels)``, rendered from them.
        features: ``(k, d)``, of these images.
        mean: the mean w, ``(1, ...)``.
        deviation: root mean squared distance of w to its mean.
    """

    w: Float[Tensor, "k ..."]
    images: Float[Tensor, "k p"]
    features: Float[Tensor, "k d"]
    mean: Tensor
    deviation: Tensor


class GeneratorSearch(FeatureSearch[GeneratorPlan]):
    """Search through a generator.

    Args:
        options: settings of the search.
        access: to the target with its weights.
        inputs: the features of the images.
        context: the attacker's images, results of earlier attacks, seed, device; with a prior.
        prior: whose images have the size of those attacked.
    """

    def __init__(
        self,
        options: GeneratorSettings,
        access: ModelAccess,
        inputs: AttackInputs,
        context: AttackContext,
        prior: Prior,
    ) -> None:
        super().__init__(options, access, inputs, context)
        self.options, self.prior = options, prior.to(context.device)
        self.depth = len(self.prior.layers())
        self.pixel_variance = float(context.auxiliary.train.images.var(0).mean()) or 1.0
        if context.earlier:
            self.anchor_on(context.earlier)
            self.fractions = options.fractions
        self.candidates = self._draw_candidates()
        self.probe_gradients()

    def plan(self) -> GeneratorPlan:
        """Choose the rule by features; then start, proximal weight and penalty by pixels."""
        options, anchored = self.options, bool(self.anchors)
        plan = GeneratorPlan(
            rule="unrolled",
            warm=anchored,
            penalty=options.penalty[0],
            proximal_weight=options.proximal_weight[0] if anchored else 0.0,
            steps=options.probe_steps,
            layer_steps=-(-options.probe_steps // 2),
        )
        plan = self.choose([replace(plan, rule=rule) for rule in self.models], FEATURES)
        if anchored:
            plan = self.choose([plan, replace(plan, warm=False)], PIXELS)
            plan = self.choose([replace(plan, proximal_weight=value) for value in options.proximal_weight], PIXELS)
        plan = self.choose([replace(plan, penalty=value) for value in options.penalty], PIXELS)
        return replace(plan, steps=options.steps, layer_steps=options.layer_steps)

    def describe(self, plan: GeneratorPlan, choice: Choice) -> dict[str, float]:
        """Return rule, start, weights, depth and fraction."""
        return {
            f"rule: {plan.rule}": 1.0,
            "warm": float(plan.warm),
            "penalty": plan.penalty,
            "anchor": plan.proximal_weight,
            "depth": float(choice.depth),
            "share": choice.fraction,
        }

    def blend(self, split: str, images: Images, fraction: float) -> Images:
        """Return the image at ``fraction`` of the way from the anchor to the search's image."""
        if not self.anchors:
            return images
        anchor = self.anchors[split][: len(images)]
        return anchor + fraction * (images - anchor)

    def search(self, plan: GeneratorPlan, split: str, indices: Tensor, depth: int) -> list[Descent]:
        """Search in w, then in w and the features of one layer after the other, to ``depth``."""
        device, options, prior = self.context.device, self.options, self.prior
        features = self.features[split][indices].to(device)
        anchor = self.anchors[split][indices].to(device) if self.anchors else None
        objective = self._objective(plan, features, anchor)
        start = self._start(plan, features, anchor)
        descents = [descend([self._latents(start)], self._synthesize, objective, plan.steps)]
        w = descents[0].iterate[1]
        outputs = prior.features(w, 0) if depth else ()
        for layer in range(depth):
            if layer:
                w, *values = descents[-1].iterate[1:]
                outputs = next_features(prior, insert_missing(outputs, values), w, layer - 1)
            moving = [
                Group(start=value, size=mean_squares(value).sqrt().clamp_min(LEAST), lr=options.layer_lr)
                for value in outputs
                if value is not None
            ]
            render = render_from(prior, outputs, layer)
            descents.append(descend([self._latents(w), *moving], render, objective, plan.layer_steps))
        return descents

    def _objective(self, plan: GeneratorPlan, features: Float[Tensor, "n d"], anchor: Images | None) -> Objective:
        model, move = self.models[plan.rule], self.options.move

        def objective(images: Images, values: Values, moves: Values) -> tuple[Tensor, Tensor]:
            loss = feature_loss(model, images, features, self.scale)
            total = loss + plan.penalty * self._penalty(values[0])
            for moved in moves[1:]:
                total = total + move * mean_squares(moved)
            if anchor is not None:
                total = total + plan.proximal_weight * mean_squares(images - anchor) / self.pixel_variance
            return total, loss

        return objective

    def _start(self, plan: GeneratorPlan, features: Float[Tensor, "n d"], anchor: Images | None) -> Tensor:
        """Return the w of the nearest candidates: by features, or by pixels and brought nearer to the anchor."""
        candidates = self.candidates
        if anchor is None or not plan.warm:
            nearest = torch.cdist(features.cpu(), candidates.features).argmin(1)
            return candidates.w[nearest].to(features.device)
        nearest = torch.cdist(anchor.flatten(1).cpu(), candidates.images).argmin(1)

        def objective(images: Images, values: Values, _moves: Values) -> tuple[Tensor, Tensor]:
            distance = mean_squares(images - anchor) / self.pixel_variance
            return distance + plan.penalty * self._penalty(values[0]), distance

        start = self._latents(candidates.w[nearest].to(features.device))
        return descend([start], self._synthesize, objective, self.options.warm_steps).iterate[1]

    @torch.no_grad()
    def _draw_candidates(self) -> Candidates:
        source = torch.Generator().manual_seed(derive(purpose="candidates", seed=self.context.seed))
        z = self.prior.latents(self.options.candidates, source)
        w = self.prior.mapping(z)
        mean = self.prior.mapping(z[:1], truncation=0.0)
        images = [clip_straight_through(self.prior.synthesis(batch)) for batch in w.split(self.batch_size)]
        return Candidates(
            w=w.cpu(),
            images=torch.cat(images).flatten(1).cpu(),
            features=torch.cat([self.models["unrolled"](batch).cpu() for batch in images]),
            mean=mean,
            deviation=(w - mean).square().mean().sqrt().clamp_min(LEAST),
        )

    def _latents(self, w: Tensor) -> Group:
        return Group(start=w, size=self.candidates.deviation.expand(len(w)), lr=self.options.lr)

    def _penalty(self, w: Tensor) -> Float[Tensor, " n"]:
        return mean_squares((w - self.candidates.mean) / self.candidates.deviation)

    def _synthesize(self, values: Values) -> Images:
        return self.prior.synthesis(values[0])
