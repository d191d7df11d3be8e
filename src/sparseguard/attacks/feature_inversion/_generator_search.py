"""The search of inversion within a prior: latents, then the generator's features, layer after layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.attacks._image_transforms import clipped
from sparseguard.attacks._white_box import Rule, WhiteBox, cosine, gradient_of, misfit
from sparseguard.attacks.access import Leak
from sparseguard.attacks.base import AttackContext, observed, own_images
from sparseguard.attacks.feature_inversion._latent_descent import (
    Images,
    Stretch,
    Values,
    descend,
    filled,
    finishing,
    mean_squared,
    onward,
)
from sparseguard.attacks.feature_inversion.gan_inversion import PriorInversion
from sparseguard.attacks.feature_inversion.optimization import RULES
from sparseguard.core.out_of_core import mean_and_spread
from sparseguard.core.seeding import derive
from sparseguard.generators import Prior
from sparseguard.types import AttackResult, Goal


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one search does.

    Args:
        rule: how gradients pass sparse layers.
        warm: start from the best earlier image.
        penalty: weight of the distance of w to its mean.
        anchor: weight of the distance to the best earlier image.
        steps: in w.
        layer_steps: in the features of each layer.
    """

    rule: Rule
    warm: bool
    penalty: float
    anchor: float
    steps: int
    layer_steps: int


class PriorSearch:
    """One run of the attack.

    Args:
        attack: its settings.
        leak: the target with its weights.
        goal: what leaked of the images.
        context: the attacker's images, what earlier attacks made, seed, device.
        prior: whose images have the size of those attacked.
    """

    def __init__(self, attack: PriorInversion, leak: Leak, goal: Goal, context: AttackContext, prior: Prior) -> None:
        self.attack, self.goal, self.context, self.prior = attack, goal, context, prior.to(context.device)
        auxiliary = context.auxiliary.train
        own = leak.observe(auxiliary).features.flatten(1)
        self.scale = float(mean_and_spread(own)[1].square().sum()) or 1.0
        self.pixel_variance = float(auxiliary.images.var(0).mean()) or 1.0
        self.features = observed(goal)
        model = leak.white_box()
        self.boxes = {rule: WhiteBox(model, rule) for rule in RULES}
        if not self.boxes["unrolled"].sparse:
            self.boxes = {"unrolled": self.boxes["unrolled"]}
        self.truth = own_images(goal["auxiliary_val"], context)
        self.notes: dict[str, float] = {}
        self.tried: dict[tuple[Plan, bool], float] = {}
        errors = {level: _error(made["auxiliary_val"], self.truth) for level, made in context.earlier.items()}
        self.anchors = context.earlier[min(errors, key=lambda level: errors[level])] if errors else {}
        if errors:
            self.notes["start_auxiliary_val_mse"] = min(errors.values())
        self._draw()
        self._gradients()

    @property
    def anchored(self) -> bool:
        """Whether an earlier attack made something of the same images."""
        return bool(self.anchors)

    def plan(self) -> Plan:
        """Choose one thing after the other on a few auxiliary_val images."""
        attack = self.attack
        plan = Plan(
            rule="unrolled",
            warm=self.anchored,
            penalty=attack.penalty[0],
            anchor=attack.anchor[0] if self.anchored else 0.0,
            steps=attack.probe_steps,
            layer_steps=-(-attack.probe_steps // 2),
        )
        plan = self._best([replace(plan, rule=rule) for rule in self.boxes], by_pixels=False)
        if self.anchored:
            plan = self._best([plan, replace(plan, warm=False)], by_pixels=True)
            plan = self._best([replace(plan, anchor=value) for value in attack.anchor], by_pixels=True)
        plan = self._best([replace(plan, penalty=value) for value in attack.penalty], by_pixels=True)
        return replace(plan, steps=attack.steps, layer_steps=attack.layer_steps)

    def result(self) -> AttackResult:
        """Carry the plan out on every part; where it does not help on auxiliary_val, answer with the anchor."""
        plan = self.plan()
        made = {part: images.clone() for part, images in self.anchors.items() if part in self.goal}
        layers = len(self.prior.layers())
        found, curve = self._search(plan, "auxiliary_val", layers)
        curves = {"auxiliary_val misfit": curve}
        error, depth, share = self._choice(found)
        helped = not self.anchored or error < self.notes["start_auxiliary_val_mse"]
        if helped:
            made["auxiliary_val"] = self._blended("auxiliary_val", found[depth], share)
            for part in [part for part in self.goal if part != "auxiliary_val"]:
                found, curves[f"{part} misfit"] = self._search(plan, part, depth)
                made[part] = self._blended(part, found[depth], share)
        self.notes |= {
            f"rule: {plan.rule}": 1.0,
            "warm": float(plan.warm),
            "penalty": plan.penalty,
            "anchor": plan.anchor,
            "depth": float(depth),
            "share": share,
            "search_auxiliary_val_mse": error,
            "searched": float(helped),
        }
        made = {part: made[part] for part in self.goal}
        residuals = {part: self._residuals(images, self.features[part]) for part, images in made.items()}
        return AttackResult(reconstructions=made, notes=self.notes, curves=curves, residuals=residuals)

    @torch.no_grad()
    def _draw(self) -> None:
        """Draw latents, and keep their w, images and features."""
        source = torch.Generator().manual_seed(derive(purpose="candidates", seed=self.context.seed))
        z = self.prior.latents(self.attack.candidates, source)
        drawn = self.prior.mapping(z)
        self.mean = self.prior.mapping(z[:1], truncation=0.0)
        self.spread = (drawn - self.mean).square().mean().sqrt().clamp_min(1e-6)
        self.candidates = drawn.cpu()
        images = [clipped(self.prior.synthesis(some)) for some in drawn.split(self.attack.batch_size)]
        self.candidate_features = torch.cat([self.boxes["unrolled"](some).cpu() for some in images])
        self.candidate_images = torch.cat(images).flatten(1).cpu()

    def _gradients(self) -> None:
        """Note how the rules' gradients at the mean image relate, and how large the unrolled one is."""
        seen = self.features["auxiliary_val"][: self.attack.probe_images].to(self.context.device)
        place = self.context.auxiliary.train.images.mean(0, keepdim=True).expand(len(seen), -1, -1, -1).to(seen.device)
        found = {rule: gradient_of(box, place, seen, self.scale) for rule, box in self.boxes.items()}
        self.notes["gradient_norm"] = float(found["unrolled"].flatten(1).norm(dim=1).mean())
        for rule in RULES[1:]:
            if rule in found:
                self.notes[f"cosine unrolled, {rule}"] = cosine(found["unrolled"], found[rule])

    def _best(self, plans: Sequence[Plan], *, by_pixels: bool) -> Plan:
        """Return the plan that comes nearest on a few auxiliary_val images: to their pixels, or to what leaked."""
        if len(plans) == 1:
            return plans[0]
        with self.context.progress.task(f"{self.context.label}: probe", len(plans)) as advance:
            for plan in plans:
                if (plan, by_pixels) not in self.tried:
                    self.tried[plan, by_pixels] = self._trial(plan, by_pixels)
                advance(1)
        return min(plans, key=lambda plan: self.tried[plan, by_pixels])

    def _trial(self, plan: Plan, by_pixels: bool) -> float:
        few = self.attack.probe_images
        found, _ = self._search(plan, "auxiliary_val", len(self.prior.layers()) if by_pixels else 0, few)
        if by_pixels:
            return self._choice(found)[0]
        return float(self._residuals(found[0], self.features["auxiliary_val"][:few]).square().mean())

    def _choice(self, found: Sequence[Images]) -> tuple[float, int, float]:
        """Return the least error on auxiliary_val, and the depth and the share of the search that reach it."""
        shares = self.attack.shares if self.anchored else (1.0,)
        return min(
            (_error(self._blended("auxiliary_val", images, share), self.truth[: len(images)]), depth, share)
            for depth, images in enumerate(found)
            for share in shares
        )

    def _blended(self, part: str, images: Images, share: float) -> Images:
        if not self.anchored:
            return images
        anchor = self.anchors[part][: len(images)]
        return anchor + share * (images - anchor)

    @torch.no_grad()
    def _residuals(self, images: Images, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        box, device = self.boxes["unrolled"], self.context.device
        rows = zip(images.split(64), features.split(64), strict=True)
        return torch.cat(
            [misfit(box, some.to(device), seen.to(device), self.scale).cpu() for some, seen in rows]
        ).sqrt()

    def _search(self, plan: Plan, part: str, depth: int, few: int | None = None) -> tuple[list[Images], list[float]]:
        """Return the first ``few`` images of a part after the search in w and after every layer to ``depth``."""
        features = self.features[part][:few]
        found: list[list[Images]] = [[] for _ in range(depth + 1)]
        curve = torch.zeros(plan.steps + 1 + depth * (plan.layer_steps + 1))
        with self.context.progress.task(f"{self.context.label}: {part}", len(features)) as advance:
            for at in torch.arange(len(features)).split(self.attack.batch_size):
                stretches = self._batch(plan, part, at, depth)
                for images, stretch in zip(found, stretches, strict=True):
                    images.append(stretch.images.cpu())
                curve += torch.cat([stretch.misfits for stretch in stretches]).cpu() * len(at) / len(features)
                advance(len(at))
        return [torch.cat(images) for images in found], curve.tolist()

    def _batch(self, plan: Plan, part: str, at: Tensor, depth: int) -> list[Stretch]:
        device = self.context.device
        seen = self.features[part][at].to(device)
        anchor = self.anchors[part][at].to(device) if self.anchored else None
        attack, prior = self.attack, self.prior
        spread = self.spread.expand(len(at))

        def objective(images: Images, values: Values, moves: Values) -> tuple[Tensor, Tensor]:
            distance = misfit(self.boxes[plan.rule], images, seen, self.scale)
            total = distance + plan.penalty * mean_squared((values[0] - self.mean) / self.spread)
            for move in moves[1:]:
                total = total + attack.move * mean_squared(move)
            if anchor is not None:
                total = total + plan.anchor * mean_squared(images - anchor) / self.pixel_variance
            return total, distance

        start = self._start(plan, seen, anchor)
        here = descend([start], [spread], [attack.lr], self._of_w, objective, plan.steps)
        found, features = [here], prior.features(here.values[0], 0) if depth else ()
        for layer in range(depth):
            if layer:
                features = onward(prior, filled(features, here.values[1:]), here.values[0], layer - 1)
            values = [here.values[0], *(part for part in features if part is not None)]
            sizes = [spread, *(mean_squared(part).sqrt().clamp_min(1e-6) for part in values[1:])]
            rates = [attack.lr, *(attack.layer_lr for _ in values[1:])]
            here = descend(values, sizes, rates, finishing(prior, features, layer), objective, plan.layer_steps)
            found.append(here)
        return found

    def _start(self, plan: Plan, seen: Float[Tensor, "n d"], anchor: Images | None) -> Tensor:
        """Return the w of the nearest candidates: by what leaked, or by pixels and brought nearer to the anchor."""
        if anchor is None or not plan.warm:
            nearest = torch.cdist(seen.cpu(), self.candidate_features).argmin(1)
            return self.candidates[nearest].to(seen.device)
        nearest = torch.cdist(anchor.flatten(1).cpu(), self.candidate_images).argmin(1)

        def objective(images: Images, values: Values, _moves: Values) -> tuple[Tensor, Tensor]:
            distance = mean_squared(images - anchor) / self.pixel_variance
            return distance + plan.penalty * mean_squared((values[0] - self.mean) / self.spread), distance

        start, spread = self.candidates[nearest].to(seen.device), self.spread.expand(len(seen))
        attack = self.attack
        return descend([start], [spread], [attack.lr], self._of_w, objective, attack.warm_steps).values[0]

    def _of_w(self, values: Values) -> Images:
        return self.prior.synthesis(values[0])


def _error(made: Images, truth: Images) -> float:
    return float((made - truth).square().mean())
