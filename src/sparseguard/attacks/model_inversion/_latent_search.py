"""The search of Plug & Play: candidates, descent, selection; a later run resumes after the last finished class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparseguard.attacks._descent import Evaluation, descend
from sparseguard.attacks._image_transforms import Crop, Resized, clip_straight_through, draw_crop, fit_to_shape
from sparseguard.attacks._search import WhiteBoxSearch
from sparseguard.attacks._white_box import RULES, Rule
from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import ClassContext
from sparseguard.attacks.model_inversion._latent_settings import LatentSettings, draw_w, synthesize
from sparseguard.attacks.model_inversion._losses import LOSSES, is_clamped
from sparseguard.core.errors import RecipeError
from sparseguard.core.seeding import derive
from sparseguard.generators import Prior
from sparseguard.types import ClassResult, Images, TargetClasses

SQUARE = (1.0, 1.0)
RULE, NEVER = "rule: ", 1e30
"""Prefix of the note that names the rule; the score of a trial that ended in values that are not finite."""

LOSS = "loss"
"""The one criterion of a trial: the mean loss of the released model after it."""

Batch = tuple[Tensor, Tensor]
"""Latents and the class wanted of each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Latents ranked for every class.

    Args:
        w: ``(candidates, ...)`` on the CPU.
        confidence: ``(candidates, classes)`` of the target.
    """

    w: Float[Tensor, "n ..."]
    confidence: Float[Tensor, "n classes"]

    def rank(self, label: int, count: int) -> Int[Tensor, " count"]:
        """Return the indices of the candidates the target is surest of, the surest first."""
        order: Tensor = self.confidence[:, label].argsort(descending=True, stable=True)
        return order[:count]


@dataclass(frozen=True, kw_only=True)
class LatentPlan:
    """How latents descend: the rule by which gradients pass sparse layers, and Adam's rate."""

    rule: Rule
    lr: float


class LatentSearch(WhiteBoxSearch[LatentPlan]):
    """One run of the attack.

    Args:
        attack: its settings.
        access: to the target's logits, with its weights.
        classes: the target classes.
        context: seed, device, partial results.
        prior: the generator.
    """

    def __init__(
        self, attack: LatentSettings, access: ModelAccess, classes: TargetClasses, context: ClassContext, prior: Prior
    ) -> None:
        super().__init__(access.copy_model(), context.progress, context.label)
        self.attack, self.classes, self.context, self.prior = attack, classes, context, prior.to(context.device)
        self.loss = LOSSES[attack.loss]

    def result(self) -> ClassResult:
        """Search for every class but those that an earlier run finished."""
        attack, labels, storage = self.attack, self.classes.indices, self.context.partial_results
        results = {label: storage.load(f"class-{label}") for label in labels}
        missing = [label for label in labels if results[label] is None]
        stored = storage.load("notes")
        if stored is not None:
            self.diagnostics |= {name: float(value) for name, value in stored.items()}
        if missing:
            self.candidates = self._draw_candidates()
            plan = self.plan() if stored is None else _restore_plan(self.diagnostics)
            diagnostics = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.diagnostics.items()}
            storage.save("notes", diagnostics)
            for label, tensors in self._search_classes(plan, missing):
                storage.save(f"class-{label}", tensors)
                results[label] = tensors
        parts = [part for label in labels if (part := results[label]) is not None]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name != "curve"}
        self.diagnostics["at_clamp"] = float(joined["at_clamp"].mean())
        curve = torch.stack([part["curve"] for part in parts]).mean(0)
        return ClassResult(
            images=joined["images"],
            labels=torch.tensor(labels).repeat_interleave(attack.optimized),
            confidence=joined["confidence"],
            steady_confidence=joined["steady_confidence"],
            selected=(torch.arange(attack.optimized) < attack.selected).repeat(len(labels)),
            starts=joined["starts"],
            start_confidence=joined["start_confidence"],
            diagnostics=self.diagnostics,
            curves={f"{attack.loss} loss": curve.tolist()},
        )

    def plan(self) -> LatentPlan:
        """Choose the rate and then the rule by the released model's loss on some candidates."""
        attack = self.attack
        self._probe_gradients()
        plan = self.choose([LatentPlan(rule="unrolled", lr=lr) for lr in attack.lr], LOSS)
        plan = self.choose([LatentPlan(rule=rule, lr=plan.lr) for rule in self.models], LOSS)
        self.diagnostics |= {f"{RULE}{plan.rule}": 1.0, "lr": plan.lr}
        self.diagnostics |= {
            f"probe loss, {tried.rule}, lr {tried.lr:g}": loss for (_, tried), loss in self.trials.items()
        }
        return plan

    def trial(self, plan: LatentPlan, criterion: str) -> float:  # noqa: ARG002
        """Return the mean loss of the released model after a short search; `NEVER` where it is not finite."""
        total, count = 0.0, 0
        for start, labels in self._probe():
            wanted = labels.to(self.context.device)
            w, _, _ = self._descend(plan, start.to(self.context.device), wanted, self.attack.probe_steps)
            with torch.no_grad():
                total += float(self.loss(self.models["unrolled"](self._render(w)), wanted).sum())
            count += len(labels)
        return total / count if math.isfinite(total) else NEVER

    def _probe(self) -> list[Batch]:
        """Return the candidates on which plans are tried, the best of every class."""
        attack, classes = self.attack, self.classes.indices
        each = -(-attack.probe_images // len(classes))
        indices = torch.cat([self.candidates.rank(label, each) for label in classes])[: attack.probe_images]
        labels = torch.tensor(classes).repeat_interleave(each)[: attack.probe_images]
        batches = self.candidates.w[indices].split(attack.batch_size), labels.split(attack.batch_size)
        return list(zip(*batches, strict=True))

    def _probe_gradients(self) -> None:
        """Record the gradients of all rules by w at these candidates."""
        gradients: dict[Rule, list[Tensor]] = {rule: [] for rule in self.models}
        for start, labels in self._probe():
            for rule, model in self.models.items():
                leaf = start.to(self.context.device).requires_grad_()
                loss = self.loss(model(self._render(leaf)), labels.to(self.context.device)).sum()
                gradients[rule].append(torch.autograd.grad(loss, leaf)[0].flatten(1).cpu())
        self.record_gradients({rule: torch.cat(parts) for rule, parts in gradients.items()})

    @torch.no_grad()
    def _draw_candidates(self) -> Candidates:
        attack = self.attack
        source = torch.Generator().manual_seed(derive(purpose="candidates", seed=self.context.seed))
        latents, confidence = [], []
        with self.progress.task(f"{self.label}: candidates", attack.candidates) as advance:
            for z in self.prior.latents(attack.candidates, source).split(attack.batch_size):
                w = draw_w(attack, self.prior, z)
                confidence.append(self._confidence(self._render(w)).cpu())
                latents.append(w.cpu())
                advance(len(z))
        return Candidates(w=torch.cat(latents), confidence=torch.cat(confidence))

    def _confidence(self, images: Images) -> Float[Tensor, "n classes"]:
        """Return the target's confidence in every class, averaged with the mirror image's where that keeps it."""
        model = self.models["unrolled"]
        plain = F.softmax(model(images), 1)
        return (plain + F.softmax(model(images.flip(3)), 1)) / 2 if self.classes.flips_keep_class else plain

    def _render(self, w: Float[Tensor, "n ..."]) -> Resized:
        """Return the images of w as the target takes them, in [0, 1]."""
        return self._fit(synthesize(self.prior, w))

    def _fit(self, images: Images) -> Resized:
        return clip_straight_through(fit_to_shape(images, self.classes.shape, self.attack.crop))

    def _search_classes(self, plan: LatentPlan, labels: list[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield each class's tensors when its last latent is done; a batch may hold latents of several classes."""
        attack = self.attack
        indices = torch.cat([self.candidates.rank(label, attack.optimized) for label in labels])
        wanted = torch.tensor(labels).repeat_interleave(attack.optimized)
        remaining = iter(labels)
        ready: dict[str, Tensor] = {}
        with self.progress.task(f"{self.label}: search", len(indices)) as advance:
            for batch in torch.arange(len(indices)).split(attack.batch_size):
                tensors = self._search_batch(plan, indices[batch], wanted[batch])
                ready = {name: torch.cat([ready[name], value]) if ready else value for name, value in tensors.items()}
                advance(len(batch))
                while len(ready["confidence"]) >= attack.optimized:
                    yield next(remaining), _sort({name: value[: attack.optimized] for name, value in ready.items()})
                    ready = {name: value[attack.optimized :] for name, value in ready.items()}

    def _search_batch(self, plan: LatentPlan, indices: Tensor, labels: Tensor) -> dict[str, Tensor]:
        start = self.candidates.w[indices].to(self.context.device)
        wanted = labels.to(self.context.device)
        w, losses, clamped = self._descend(plan, start, wanted, self.attack.steps)
        with torch.no_grad():
            images, starts = self._render(w), self._render(start)
            steady = self._steady_confidence(images, wanted)
            confidence = self._confidence(images).gather(1, wanted.unsqueeze(1)).squeeze(1)
        return {
            "images": images.cpu(),
            "confidence": confidence.cpu(),
            "steady_confidence": steady.cpu(),
            "starts": starts.cpu(),
            "start_confidence": self.candidates.confidence[indices, labels],
            "losses": losses.cpu(),
            "at_clamp": clamped.cpu(),
        }

    def _descend(
        self, plan: LatentPlan, start: Float[Tensor, "n ..."], wanted: Int[Tensor, " n"], steps: int
    ) -> tuple[Tensor, Float[Tensor, "n steps"], Float[Tensor, " n"]]:
        """Return the latents after the last step, their losses, and 1 where the last loss was at its clamp.

        Random crops depend on the step alone, so that no latent's path depends on those it is searched with.
        """
        attack = self.attack
        initial = start.expand(-1, self.prior.card.num_ws, -1) if self.prior.has_w and attack.space == "w+" else start
        w = initial.detach().clone().requires_grad_()
        logits = torch.empty(0)

        def evaluate(step: int) -> Evaluation:
            nonlocal logits
            images = synthesize(self.prior, w)
            logits = self.models[plan.rule](self._crop(step, "search").apply(self._fit(images)))
            loss = self.loss(logits, wanted)
            penalty = attack.discriminator * F.softplus(-self._realism(images)) if attack.discriminator else 0
            return Evaluation(objective=loss + penalty, loss=loss)

        losses = descend(evaluate, torch.optim.Adam([w], lr=plan.lr, betas=attack.betas), steps)
        clamped = is_clamped(logits.detach()) if attack.loss == "poincare" else torch.zeros(len(w), device=w.device)
        return w.detach(), torch.stack(losses, 1), clamped

    def _realism(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        logits = self.prior.realism(images)
        if logits is None:
            raise RecipeError(f"{self.label}: the prior has no discriminator; set discriminator = 0.")
        return logits

    def _steady_confidence(self, images: Images, wanted: Tensor) -> Float[Tensor, " n"]:
        """Return the mean confidence over random crops, the same ones for every image."""
        total = torch.zeros(len(images), device=images.device)
        for number in range(self.attack.transforms):
            answers = F.softmax(self.models["unrolled"](self._crop(number, "select").apply(images)), 1)
            total += answers.gather(1, wanted.unsqueeze(1)).squeeze(1)
        return total / self.attack.transforms

    def _crop(self, number: int, purpose: str) -> Crop:
        attack = self.attack
        source = torch.Generator().manual_seed(derive(purpose=purpose, seed=self.context.seed, number=number))
        if purpose == "search":
            return draw_crop(self.classes.shape[1:], attack.scale, SQUARE, False, source)
        mirrors = self.classes.flips_keep_class
        return draw_crop(self.classes.shape[1:], attack.final_scale, attack.final_ratio, mirrors, source)


def _sort(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return one class's tensors with the steadiest image first, and its mean losses as a curve."""
    order = tensors["steady_confidence"].argsort(descending=True, stable=True)
    losses = tensors.pop("losses")
    return {name: value[order] for name, value in tensors.items()} | {"curve": losses.mean(0)}


def _restore_plan(diagnostics: Mapping[str, float]) -> LatentPlan:
    """Return the plan of the run that was interrupted."""
    rule = next(rule for rule in RULES if f"{RULE}{rule}" in diagnostics)
    return LatentPlan(rule=rule, lr=diagnostics["lr"])
