"""Inversion by gradients: search the image whose features are the ones that leaked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sparseguard.attacks._white_box import Rule, WhiteBox, cosine, gradient_of, misfit
from sparseguard.attacks.access import Leak
from sparseguard.attacks.base import Attack, AttackContext, NotApplicable, observed, own_images
from sparseguard.core.config import settings
from sparseguard.core.out_of_core import mean_and_spread
from sparseguard.sparse import NotConvergedWarning
from sparseguard.types import AttackResult, Goal, Knowledge

Images = Float[Tensor, "n c h w"]
RULES: tuple[Rule, ...] = ("unrolled", "implicit", "straight-through")
WEAK = 0.3
"""Lambda starts at this share of the released one in the homotopy, and has risen to it after half of the steps."""

NonNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one search does.

    Args:
        rule: how gradients pass sparse layers.
        start: name of the image searched from.
        tv: weight of total variation.
        prior: weight of the distance to the best earlier image.
        homotopy: begin with a smaller lambda.
        steps: how many.
    """

    rule: Rule
    start: str
    tv: float
    prior: float
    homotopy: bool
    steps: int


@settings
class GradientInversion(Attack):
    r"""Minimize the distance in feature space by Adam, with priors on the image.

    .. math:: \min_y \frac{\|f(x) - z\|^2}{s} + \alpha \, TV(x) + \beta \, \frac{\|y\|^2}{\text{pixels}},
              \qquad x = \operatorname{clip}_{[0, 1]}(x_0 + V \sigma y)

    f is the target without its noise, z what leaked, s the total variance of the features, TV the mean squared
    difference of neighbouring pixels, :math:`x_0` what the best attack before this one made (the mean image, if there
    was none). The columns of V are the principal components of the attacker's images, :math:`\sigma_i` is how far
    :math:`x_0` is off along the i-th on auxiliary_val: the search moves where :math:`x_0` is likely to be wrong.

    Tried on some auxiliary_val images, in this order, and the best kept: the rule by which gradients pass sparse layers
    and a lambda that starts small (both by the distance in feature space); the start (zeros, mean image, the best
    result of each level of knowledge), then beta, then alpha (by the error in pixels). If the search comes no nearer
    to the auxiliary_val images than :math:`x_0`, :math:`x_0` is the answer.

    Args:
        steps: of Adam; every image keeps the iterate of lowest objective, so that more never hurt the objective.
        lr: step size in units of y, with cosine decay.
        tv: values of alpha tried.
        prior: values of beta tried.
        probe_images: auxiliary_val images the choices are made on.
        probe_steps: steps of each trial.
        batch_size: images searched at once.

    Source: He, Zhang and Lee 2019, "Model inversion attacks against collaborative inference" (white-box, regularized
    maximum likelihood). Deviations: the prior and its coordinates, starts other than zero, [0, 1] enforced, alpha
    chosen.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "search by gradients through the weights for the image with these features"
    source: ClassVar[str] = "He et al., ACSAC 2019"
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    images: ClassVar[int | None] = 32
    learns_from_features: ClassVar[bool] = False
    starts_from_earlier: ClassVar[bool] = True
    steps: Annotated[int, Field(ge=1)] = 80
    lr: Annotated[float, Field(gt=0)] = 0.1
    tv: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0.0, 0.3)
    prior: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0.003, 0.03, 0.3, 3.0)
    probe_images: Annotated[int, Field(ge=1)] = 8
    probe_steps: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 32

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Choose a plan on auxiliary_val and carry it out."""
        if "auxiliary_val" not in goal:
            raise NotApplicable("it makes its choices on auxiliary_val, which an attacker with other images lacks")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotConvergedWarning)  # the rule is judged by what it achieves
            search = _Search(self, leak, goal, context)
            return search.result(search.plan())


class _Search:
    def __init__(self, attack: GradientInversion, leak: Leak, goal: Goal, context: AttackContext) -> None:
        self.attack, self.goal, self.context = attack, goal, context
        auxiliary = context.auxiliary.train
        own = leak.observe(auxiliary).features.flatten(1)
        self.scale = float(mean_and_spread(own)[1].square().sum()) or 1.0
        self.features = observed(goal)
        model = leak.white_box()
        self.boxes = {rule: WhiteBox(model, rule) for rule in RULES}
        if not self.boxes["unrolled"].sparse:
            self.boxes = {"unrolled": self.boxes["unrolled"]}
        self.truth = own_images(goal["auxiliary_val"], context)
        mean = auxiliary.images.mean(0, keepdim=True)
        flat: dict[str, Mapping[str, Images]] = {
            "zeros": {part: torch.zeros_like(mean).expand(one.count, -1, -1, -1) for part, one in goal.items()},
            "mean image": {part: mean.expand(one.count, -1, -1, -1) for part, one in goal.items()},
        }
        self.starts = {**flat, **context.earlier}
        errors = {
            name: float((made["auxiliary_val"] - self.truth).square().mean()) for name, made in self.starts.items()
        }
        self.anchor = min(errors, key=lambda name: errors[name])
        self.basis = likely_errors(auxiliary.images, self.truth - self.starts[self.anchor]["auxiliary_val"])
        self.notes: dict[str, float] = {"start_auxiliary_val_mse": errors[self.anchor]}

    def plan(self) -> Plan:
        """Choose one thing after the other on a few auxiliary_val images."""
        attack = self.attack
        few = slice(0, min(attack.probe_images, len(self.truth)))
        middle = attack.prior[len(attack.prior) // 2]
        plan = Plan(rule="unrolled", start="mean image", tv=0.0, prior=0.0, homotopy=False, steps=attack.probe_steps)
        self._gradients(few)
        plan = self._best([replace(plan, rule=rule) for rule in self.boxes], few, by_pixels=False)
        if self.boxes[plan.rule].sparse:
            plan = self._best([plan, replace(plan, homotopy=True)], few, by_pixels=False)
        plan = self._best([replace(plan, start=name, prior=middle) for name in self.starts], few, by_pixels=True)
        plan = self._best([replace(plan, prior=prior) for prior in attack.prior], few, by_pixels=True)
        plan = self._best([replace(plan, tv=tv) for tv in attack.tv], few, by_pixels=True)
        self.notes |= {
            "tv": plan.tv,
            "prior": plan.prior,
            "homotopy": float(plan.homotopy),
            f"rule: {plan.rule}": 1.0,
            f"start: {plan.start}": 1.0,
        }
        return replace(plan, steps=attack.steps)

    def result(self, plan: Plan) -> AttackResult:
        """Carry the plan out on every part; where it does not help on auxiliary_val, answer with the anchor."""
        made = {part: images.clone() for part, images in self.starts[self.anchor].items() if part in self.goal}
        tried, curve = self._search(plan, "auxiliary_val", slice(None))
        curves = {"auxiliary_val misfit": curve}
        error = float((tried - self.truth).square().mean())
        helped = error < self.notes["start_auxiliary_val_mse"]
        if helped:
            made["auxiliary_val"] = tried
            for part in [part for part in self.goal if part != "auxiliary_val"]:
                made[part], curves[f"{part} misfit"] = self._search(plan, part, slice(None))
        self.notes |= {"search_auxiliary_val_mse": error, "searched": float(helped)}
        box = self.boxes["unrolled"]
        with torch.no_grad():
            residuals = {
                part: torch.cat(
                    [
                        misfit(box, some.to(self.context.device), seen.to(self.context.device), self.scale).cpu()
                        for some, seen in zip(images.split(64), self.features[part].split(64), strict=True)
                    ]
                ).sqrt()
                for part, images in made.items()
            }
        return AttackResult(reconstructions=made, notes=self.notes, curves=curves, residuals=residuals)

    def _gradients(self, few: slice) -> None:
        """Note how the rules' gradients at the mean image relate, and how large the unrolled one is."""
        device = self.context.device
        place = self.starts["mean image"]["auxiliary_val"][few].to(device)
        seen = self.features["auxiliary_val"][few].to(device)
        found = {rule: gradient_of(box, place, seen, self.scale) for rule, box in self.boxes.items()}
        self.notes["gradient_norm"] = float(found["unrolled"].flatten(1).norm(dim=1).mean())
        for rule in RULES[1:]:
            if rule in found:
                self.notes[f"cosine unrolled, {rule}"] = cosine(found["unrolled"], found[rule])

    def _best(self, plans: list[Plan], few: slice, by_pixels: bool) -> Plan:
        if len(plans) == 1:
            return plans[0]
        return min(plans, key=lambda plan: self._trial(plan, few, by_pixels))

    def _trial(self, plan: Plan, few: slice, by_pixels: bool) -> float:
        made, _ = self._search(plan, "auxiliary_val", few)
        if by_pixels:
            return float((made - self.truth[few]).square().mean())
        device, box = self.context.device, self.boxes["unrolled"]
        with torch.no_grad():
            return float(
                misfit(box, made.to(device), self.features["auxiliary_val"][few].to(device), self.scale).mean()
            )

    def _search(self, plan: Plan, part: str, some: slice) -> tuple[Images, list[float]]:
        starts, anchors = self.starts[plan.start][part][some], self.starts[self.anchor][part][some]
        features = self.features[part][some]
        found, curve = [], torch.zeros(plan.steps + 1)
        label = f"{self.context.label}: {part}"
        with self.context.progress.task(label, len(features)) as advance:
            for at in torch.arange(len(features)).split(self.attack.batch_size):
                rows = (values[at].to(self.context.device) for values in (starts, anchors, features))
                images, misfits = self._descend(plan, *rows)
                found.append(images.cpu())
                curve += misfits.cpu() * len(at) / len(features)
                advance(len(at))
        return torch.cat(found), curve.tolist()

    def _descend(
        self, plan: Plan, start: Images, anchor: Images, features: Tensor
    ) -> tuple[Images, Float[Tensor, " steps"]]:
        """Return every image's iterate of lowest objective, and the mean misfit at every step."""
        box, basis = self.boxes[plan.rule], self.basis.to(start.device)
        away = torch.linalg.solve(basis, (start - anchor).flatten(1).T).T  # y of the start, (n, pixels)
        away = away.contiguous().requires_grad_()
        optimizer = torch.optim.Adam([away], lr=self.attack.lr)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps)
        best, lowest = start.clone(), torch.full((len(start),), torch.inf, device=start.device)
        misfits = []
        for step in range(plan.steps + 1):
            factor = min(1.0, WEAK + (1 - WEAK) * 2 * step / plan.steps) if plan.homotopy else 1.0
            box.scale_lambda(factor)
            moved = anchor + (away @ basis.T).view_as(anchor)
            outside = moved - moved.clamp(0, 1)
            images = moved - outside.detach()  # clipped; the gradient passes, so that no pixel stays at the border
            distance = misfit(box, images, features, self.scale)
            priors = plan.tv * variation(images) + plan.prior * _mean_squared(away) + _mean_squared(outside)
            objective = distance + priors
            with torch.no_grad():
                better = (objective < lowest) & (factor == 1.0)
                lowest = torch.where(better, objective, lowest)
                best = torch.where(better.view(-1, 1, 1, 1), images, best)
                misfits.append(distance.detach().mean())
            if step == plan.steps:
                break
            optimizer.zero_grad(set_to_none=True)
            objective.sum().backward()
            optimizer.step()
            decay.step()
        return best, torch.stack(misfits)


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


def variation(images: Images) -> Float[Tensor, " n"]:
    """Return each image's mean squared difference of neighbouring pixels, down and across (He et al. 2019)."""
    return _mean_squared(images[:, :, 1:] - images[:, :, :-1]) + _mean_squared(
        images[:, :, :, 1:] - images[:, :, :, :-1]
    )


def _mean_squared(values: Tensor) -> Float[Tensor, " n"]:
    return values.square().flatten(1).mean(1)
