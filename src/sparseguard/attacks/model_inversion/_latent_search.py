"""The search of Plug & Play: candidates, descent, selection; one class after the other can be kept and gone on with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sparseguard.attacks._image_transforms import Crop, Images, Resized, clipped, fitted, random_crop
from sparseguard.attacks._white_box import Rule, WhiteBox
from sparseguard.attacks.access import Leak
from sparseguard.attacks.class_base import ClassContext
from sparseguard.attacks.model_inversion._losses import LOSSES, at_clamp
from sparseguard.attacks.model_inversion.plug_and_play import PlugAndPlay
from sparseguard.core.errors import RecipeError
from sparseguard.core.seeding import derive
from sparseguard.types import Classes, ClassResult

RULES: tuple[Rule, ...] = ("unrolled", "implicit", "straight-through")
SQUARE = (1.0, 1.0)
RULE, NEVER = "rule: ", 1e30
"""How the chosen rule is noted; the loss of a trial that ended in values that are not finite."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Latents ranked for every class.

    Args:
        w: ``(candidates, ...)`` on the CPU.
        confidence: ``(candidates, classes)`` of the target.
    """

    w: Float[Tensor, "n ..."]
    confidence: Float[Tensor, "n classes"]

    def best(self, label: int, count: int) -> Int[Tensor, " count"]:
        """Return the places of the candidates the target is surest of, the surest first."""
        order: Tensor = self.confidence[:, label].argsort(descending=True, stable=True)
        return order[:count]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How latents descend: the rule by which gradients pass sparse layers, and Adam's rate."""

    rule: Rule
    lr: float


class LatentSearch:
    """One run of the attack.

    Args:
        attack: its settings.
        leak: the target's logits, with its weights.
        goal: the classes.
        context: prior, seed, device.

    Raises:
        RecipeError: when no prior is named, or settings do not fit it.
    """

    def __init__(self, attack: PlugAndPlay, leak: Leak, goal: Classes, context: ClassContext) -> None:
        if context.prior is None:
            raise RecipeError(f"{context.label}: name a prior: prior = 'NAME or FOLDER'.")
        self.attack, self.goal, self.context, self.prior = attack, goal, context, context.prior.to(context.device)
        model = leak.white_box()
        self.boxes = {rule: WhiteBox(model, rule) for rule in RULES}
        if not self.boxes["unrolled"].sparse:
            self.boxes = {"unrolled": self.boxes["unrolled"]}
        self.notes: dict[str, float] = {}

    def result(self) -> ClassResult:
        """Search for every class, but for those that are kept already."""
        attack, goal = self.attack, self.goal
        found = {label: self.context.kept.load(f"class-{label}") for label in goal.wanted}
        missing = [label for label in goal.wanted if found[label] is None]
        kept = self.context.kept.load("notes")
        if kept is not None:
            self.notes |= {name: float(value) for name, value in kept.items()}
        if missing:
            candidates = self._candidates()
            way = self._way(candidates) if kept is None else _noted(self.notes)
            notes = {name: torch.tensor(value, dtype=torch.float64) for name, value in self.notes.items()}
            self.context.kept.save("notes", notes)
            for label, tensors in self._searched(candidates, way, missing):
                self.context.kept.save(f"class-{label}", tensors)
                found[label] = tensors
        parts = [part for label in goal.wanted if (part := found[label]) is not None]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name != "curve"}
        labels = torch.tensor(goal.wanted).repeat_interleave(attack.optimized)
        self.notes["at_clamp"] = float(joined.pop("at_clamp").mean())
        curve = torch.stack([part["curve"] for part in parts]).mean(0)
        return ClassResult(
            images=joined["images"],
            labels=labels,
            confidence=joined["confidence"],
            steady_confidence=joined["steady_confidence"],
            selected=(torch.arange(attack.optimized) < attack.selected).repeat(len(goal.wanted)),
            starts=joined["starts"],
            start_confidence=joined["start_confidence"],
            notes=self.notes,
            curves={f"{attack.loss} loss": curve.tolist()},
        )

    @torch.no_grad()
    def _candidates(self) -> Candidates:
        attack = self.attack
        source = torch.Generator().manual_seed(derive(purpose="candidates", seed=self.context.seed))
        latents, confidence = [], []
        with self.context.progress.task(f"{self.context.label}: candidates", attack.candidates) as advance:
            for z in self.prior.latents(attack.candidates, source).split(attack.batch_size):
                w = attack.drawn(self.prior, z)
                confidence.append(self._confidence(self._images(w)).cpu())
                latents.append(w.cpu())
                advance(len(z))
        return Candidates(w=torch.cat(latents), confidence=torch.cat(confidence))

    def _confidence(self, images: Images) -> Float[Tensor, "n classes"]:
        """Return the target's confidence in every class, averaged with the mirror image's where that keeps it."""
        box = self.boxes["unrolled"]
        shown = F.softmax(box(images), 1)
        return (shown + F.softmax(box(images.flip(3)), 1)) / 2 if self.goal.flips_keep_class else shown

    def _images(self, w: Float[Tensor, "n ..."]) -> Images:
        """Return what the target is shown of w, in [0, 1]."""
        return self._shown(self._whole(w))

    def _whole(self, w: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        return self.prior.synthesis(w.expand(-1, self.prior.card.num_ws, -1) if self.prior.has_w else w)

    def _shown(self, whole: Images) -> Resized:
        return clipped(fitted(whole, self.goal.shape, self.attack.crop))

    def _way(self, candidates: Candidates) -> Way:
        """Choose the rate and then the rule by what they do to the released model on some candidates."""
        attack, goal = self.attack, self.goal
        each = -(-attack.probe_images // len(goal.wanted))
        places = torch.cat([candidates.best(label, each) for label in goal.wanted])[: attack.probe_images]
        labels = torch.tensor(goal.wanted).repeat_interleave(each)[: attack.probe_images]
        probe = list(zip(candidates.w[places].split(attack.batch_size), labels.split(attack.batch_size), strict=True))
        self._gradients(probe)
        others = [rule for rule in self.boxes if rule != "unrolled"]
        trials = (len(attack.lr) if len(attack.lr) > 1 or others else 0) + len(others)
        with self.context.progress.task(f"{self.context.label}: probe", trials) as advance:

            def best(ways: list[Way]) -> Way:
                if len(ways) == 1:
                    return ways[0]
                for way in ways:
                    if way not in reached:
                        reached[way] = self._reached(way, probe)
                        advance(1)
                return min(ways, key=lambda way: reached[way])

            reached: dict[Way, float] = {}
            way = best([Way(rule="unrolled", lr=lr) for lr in attack.lr])
            way = best([Way(rule=rule, lr=way.lr) for rule in self.boxes])
        self.notes |= {f"{RULE}{way.rule}": 1.0, "lr": way.lr}
        self.notes |= {f"probe loss, {tried.rule}, lr {tried.lr:g}": loss for tried, loss in reached.items()}
        return way

    def _reached(self, way: Way, probe: list[tuple[Tensor, Tensor]]) -> float:
        """Return the mean loss of the released model after a trial; infinite where it is not finite."""
        total, count = 0.0, 0
        for start, labels in probe:
            wanted = labels.to(self.context.device)
            w, _, _ = self._descend(way, start.to(self.context.device), wanted, self.attack.probe_steps)
            with torch.no_grad():
                total += float(LOSSES[self.attack.loss](self.boxes["unrolled"](self._images(w)), wanted).sum())
            count += len(labels)
        return total / count if math.isfinite(total) else NEVER

    def _gradients(self, probe: list[tuple[Tensor, Tensor]]) -> None:
        """Note how large the gradients in w are, and the cosines between the exact ones and those of other rules."""
        found: dict[str, list[Tensor]] = {rule: [] for rule in self.boxes}
        for start, labels in probe:
            for rule, box in self.boxes.items():
                leaf = start.to(self.context.device).requires_grad_()
                loss = LOSSES[self.attack.loss](box(self._images(leaf)), labels.to(self.context.device)).sum()
                found[rule].append(torch.autograd.grad(loss, leaf)[0].flatten(1).cpu())
        gradients = {rule: torch.cat(parts) for rule, parts in found.items()}
        self.notes["gradient_norm"] = float(gradients["unrolled"].norm(dim=1).mean())
        for rule in RULES[1:]:
            if rule in gradients:
                cosine = float(F.cosine_similarity(gradients["unrolled"], gradients[rule], dim=1).mean())
                if math.isfinite(cosine):
                    self.notes[f"cosine unrolled, {rule}"] = cosine

    def _searched(
        self, candidates: Candidates, way: Way, missing: list[int]
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield each class's tensors when its last latent is done; a batch may hold latents of several classes."""
        attack = self.attack
        places = torch.cat([candidates.best(label, attack.optimized) for label in missing])
        labels = torch.tensor(missing).repeat_interleave(attack.optimized)
        waiting: list[dict[str, Tensor]] = []
        done = 0
        with self.context.progress.task(f"{self.context.label}: search", len(places)) as advance:
            for some in torch.arange(len(places)).split(attack.batch_size):
                waiting.append(self._batch(candidates, way, places[some], labels[some]))
                advance(len(some))
                ready = {name: torch.cat([part[name] for part in waiting]) for name in waiting[0]}
                while len(ready["confidence"]) >= attack.optimized:
                    yield missing[done], _ranked({name: value[: attack.optimized] for name, value in ready.items()})
                    ready = {name: value[attack.optimized :] for name, value in ready.items()}
                    done += 1
                waiting = [ready]

    def _batch(self, candidates: Candidates, way: Way, places: Tensor, labels: Tensor) -> dict[str, Tensor]:
        start = candidates.w[places].to(self.context.device)
        wanted = labels.to(self.context.device)
        w, losses, clamped = self._descend(way, start, wanted, self.attack.steps)
        with torch.no_grad():
            images, starts = self._images(w), self._images(start)
            steady = self._steady_confidence(images, wanted)
            confidence = self._confidence(images).gather(1, wanted.unsqueeze(1)).squeeze(1)
        return {
            "images": images.cpu(),
            "confidence": confidence.cpu(),
            "steady_confidence": steady.cpu(),
            "starts": starts.cpu(),
            "start_confidence": candidates.confidence[places, labels],
            "losses": losses.cpu(),
            "at_clamp": clamped.cpu(),
        }

    def _descend(
        self, way: Way, start: Float[Tensor, "n ..."], wanted: Int[Tensor, " n"], steps: int
    ) -> tuple[Tensor, Float[Tensor, "n steps"], Float[Tensor, " n"]]:
        """Return the latents after the last step, every latent's losses, and where the last loss was at its clamp.

        Random crops depend on the step alone, so that no latent's way depends on those it is searched with.
        """
        attack, box = self.attack, self.boxes[way.rule]
        w = start.detach().clone().requires_grad_()
        if self.prior.has_w and attack.space == "w+":
            w = start.expand(-1, self.prior.card.num_ws, -1).detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([w], lr=way.lr, betas=attack.betas)
        losses, clamped = [], torch.zeros(len(start), device=start.device)
        for step in range(steps):
            whole = self._whole(w)
            logits = box(self._crop(step, "search").of(self._shown(whole)))
            loss = LOSSES[attack.loss](logits, wanted)
            clamped = at_clamp(logits.detach()) if attack.loss == "poincare" else clamped
            losses.append(loss.detach())
            objective = loss.sum()
            if attack.discriminator:
                objective = objective + attack.discriminator * F.softplus(-self._realism(whole)).sum()
            optimizer.zero_grad(set_to_none=True)
            objective.backward()
            optimizer.step()
        return w.detach(), torch.stack(losses, 1), clamped

    def _realism(self, whole: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        logits = self.prior.realism(whole)
        if logits is None:
            raise RecipeError(f"{self.context.label}: the prior has no discriminator; set discriminator = 0.")
        return logits

    def _steady_confidence(self, images: Images, wanted: Tensor) -> Float[Tensor, " n"]:
        """Return the mean confidence over random crops, the same ones for every image."""
        total = torch.zeros(len(images), device=images.device)
        for number in range(self.attack.transforms):
            answers = F.softmax(self.boxes["unrolled"](self._crop(number, "select").of(images)), 1)
            total += answers.gather(1, wanted.unsqueeze(1)).squeeze(1)
        return total / self.attack.transforms

    def _crop(self, number: int, purpose: str) -> Crop:
        attack = self.attack
        source = torch.Generator().manual_seed(derive(purpose=purpose, seed=self.context.seed, number=number))
        if purpose == "search":
            return random_crop(self.goal.shape[1:], attack.scale, SQUARE, False, source)
        mirrors = self.goal.flips_keep_class
        return random_crop(self.goal.shape[1:], attack.final_scale, attack.final_ratio, mirrors, source)


def _ranked(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return one class's tensors with the steadiest image first, and its mean losses as a curve."""
    order = found["steady_confidence"].argsort(descending=True, stable=True)
    losses = found.pop("losses")
    return {name: value[order] for name, value in found.items()} | {"curve": losses.mean(0)}


def _noted(notes: Mapping[str, float]) -> Way:
    """Return the way an interrupted attack had chosen."""
    rule = next(rule for rule in RULES if f"{RULE}{rule}" in notes)
    return Way(rule=rule, lr=notes["lr"])
