"""The attacks of one case: each run once, under its conditions, and scored on the images it attacked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sparseguard.attacks import AttackContext
from sparseguard.attacks.base import NotApplicable
from sparseguard.core.config import parse
from sparseguard.core.errors import RecipeError, TrainingError
from sparseguard.core.out_of_core import IMAGES_LIMIT, gather, row_chunks, select_rows, tap_limit
from sparseguard.core.progress import Progress
from sparseguard.core.seeding import derive
from sparseguard.data import DATASETS
from sparseguard.data.splits import balanced_subset
from sparseguard.pipeline.plan.cases import PlannedCase, select_earlier
from sparseguard.pipeline.recipe.conditions import Conditions, select_attacked, select_known
from sparseguard.pipeline.recipe.entries import NamedAttack
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.scoring.images import scored_parts
from sparseguard.pipeline.store import Store, StoredAttack
from sparseguard.pipeline.tasks.observe import Observed
from sparseguard.pipeline.tasks.priors import Priors
from sparseguard.types import (
    FLOORS,
    AttackInput,
    AttackInputs,
    AuxiliaryData,
    ImageSet,
    Knowledge,
    Observation,
    Splits,
    as_unit_float,
)

SAME = 1e-5
"""Answers that differ by less, relative to the features' spread, differ by rounding."""


@dataclass(kw_only=True, eq=False)
class Attacks:
    """Runs a case's attacks in the recipe's order and keeps what later ones may start from.

    Args:
        recipe: the recipe.
        job: the case.
        splits: the images.
        store: where finished attacks are kept.
        device: where to train.
        progress: told how far it is.
        observed: the target's tap.
        untrained: the tap of the target before training; made when first asked for.
        priors: generators that attacks are given.
    """

    recipe: Recipe
    job: PlannedCase
    splits: Splits
    store: Store
    device: torch.device
    progress: Progress
    observed: Observed
    untrained: Callable[[], Observed]
    priors: Priors
    done: dict[str, StoredAttack] = field(default_factory=dict)

    def run(self, attack: NamedAttack) -> StoredAttack:
        """Return what an attack made, now or in an earlier run.

        Raises:
            NotApplicable: when it has nothing to offer against this target.
            TrainingError: when its training or its result means nothing.
        """
        if attack.conditions.queries > 1 and self.observed.noise_ratio < SAME:
            raise NotApplicable("the target answers equal queries equally, so that repeating them tells nothing")
        if attack.conditions.control == "shuffled-features" and not attack.component.learns_from_features:
            raise NotApplicable("it does not learn from features, so shuffling them changes nothing")
        stored = self.store.load_attack(self.job.attack_keys[attack.label]) or self._run(attack)
        self.done[attack.label] = stored
        return stored

    def index(self, attack: NamedAttack) -> dict[str, Tensor | None]:
        """Return, for each part, which images are attacked; None for all of it."""
        parts = self.splits.by_name()
        known = {"private": attack.conditions.known_private}
        return {
            part: select_attacked(len(parts[part]), attack.max_images, known.get(part, 0.0))
            for part in self._parts(attack)
        }

    def _parts(self, attack: NamedAttack) -> list[str]:
        """An attacker with fewer or other images has no auxiliary_val that the others have."""
        own = attack.conditions.auxiliary_fraction == 1 and attack.conditions.dataset is None
        return [part for part in scored_parts(self.splits) if own or part != "auxiliary_val"]

    def _run(self, attack: NamedAttack) -> StoredAttack:
        job, conditions, component = self.job, attack.conditions, attack.component
        tap = self.untrained() if conditions.control == "untrained-target" else self.observed
        index = self.index(attack)
        label = f"{job.threat.name}: {job.defense.label}: {attack.label}"
        context = AttackContext(
            auxiliary=attacker_images(self.splits, conditions),
            seed=derive(purpose="attack", attack=attack.name, threat=job.threat.name, seed=job.seed),
            device=self.device,
            progress=self.progress,
            label=label,
            earlier=self._earlier(attack, index),
            prior=self.priors.of(attack),
        )
        leak = tap.leak(attack.knowledge, attack.label, conditions)
        started = time.monotonic()
        try:
            result, outside = component(leak, self._goal(attack, tap, index), context)
        except (ArithmeticError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            raise TrainingError(f"{label}: {error}") from error
        facts = {
            "parameter_change": result.parameter_change,
            "outside_range": outside,
            "notes": dict(result.notes),
            "curves": {name: [float(value) for value in curve] for name, curve in result.curves.items()},
            "residuals": {part: values.tolist() for part, values in result.residuals.items()},
            "public_queries": leak.queries,
            "seconds": time.monotonic() - started,
        }
        return self.store.save_attack(job.attack_keys[attack.label], result.reconstructions, facts)

    def _goal(self, attack: NamedAttack, tap: Observed, index: Mapping[str, Tensor | None]) -> AttackInputs:
        seen = None if attack.knowledge in FLOORS else tap.observations(attack.conditions.queries)
        goal = {}
        for part, places in index.items():
            images = self.splits.by_name()[part]
            every = torch.arange(len(images)) if places is None else places
            observation = None if seen is None else seen[part]
            if observation is not None and places is not None:
                chosen = select_rows(observation.features, places, tap_limit())
                observation = Observation(features=chosen, tap=observation.tap)
            goal[part] = AttackInput(
                count=len(every),
                observation=observation,
                labels=images.labels[every] if attack.knowledge == Knowledge.LABEL else None,
                index=places,
            )
        return goal

    def _earlier(self, attack: NamedAttack, index: Mapping[str, Tensor | None]) -> dict[str, dict[str, Tensor]]:
        """Of the attacks before, the best of each level of knowledge."""
        if "auxiliary_val" not in index:
            return {}
        places, val = index["auxiliary_val"], self.splits.auxiliary_val
        truth = val.images if places is None else val.batch(places)
        best: dict[str, tuple[float, dict[str, Tensor]]] = {}
        for other in select_earlier(self.recipe, attack):
            if other.label in self.done:
                made = self._placed(other, index)
                error = float((made["auxiliary_val"] - truth).square().mean())
                best[other.knowledge] = min(
                    best.get(other.knowledge, (error, made)), (error, made), key=lambda one: one[0]
                )
        return {level: made for level, (_, made) in best.items()}

    def _placed(self, attack: NamedAttack, index: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """What ``attack`` made of the images at ``index``, which are among those it attacked."""
        own, placed = self.index(attack), dict[str, Tensor]()
        for part, made in self.done[attack.label].reconstructions.items():
            if part in index:
                places, attacked = index[part], own[part]
                rows = places if attacked is None or places is None else torch.searchsorted(attacked, places)
                placed[part] = made if rows is None else made[rows]
        return placed


def attacker_images(splits: Splits, conditions: Conditions) -> AuxiliaryData:
    """Return the images an attacker learns from under ``conditions``: none of test, and of private those it says.

    Another data set may hold copies of images to be reconstructed, as when one was drawn from the other; they are left
    out.

    Raises:
        RecipeError: when the other data set's images have another size.
        DataError: when it cannot be read, or the share leaves fewer images than classes.
    """
    train, val = splits.auxiliary, splits.auxiliary_val
    if conditions.dataset is not None:
        told = {"path": conditions.path} if conditions.path else {}
        other = parse(DATASETS[conditions.dataset], told, f"[[attacks]] conditions data '{conditions.dataset}'").load()
        if other.private.shape != splits.private.shape:
            raise RecipeError(
                f"[[attacks]] conditions: images of '{conditions.dataset}' have the shape {other.private.shape}, those of "
                f"'{splits.name}' {splits.private.shape}. Choose another set."
            )
        train, val = (
            balanced_subset(strangers, min(len(own), len(strangers)), what=f"images of {conditions.dataset}")
            for own, strangers in (
                (train, _without(other.auxiliary, splits)),
                (val, _without(other.auxiliary_val, splits)),
            )
        )
    if conditions.auxiliary_fraction < 1:
        least = len(splits.private.classes)
        train, val = (
            balanced_subset(
                images, max(least, round(conditions.auxiliary_fraction * len(images))), what="attacker's images"
            )
            for images in (train, val)
        )
    if conditions.known_private:
        train = _joined(train, splits.private.select(select_known(len(splits.private), conditions.known_private)))
    return AuxiliaryData(train=train, val=val)


def _joined(first: ImageSet, second: ImageSet) -> ImageSet:
    if first.pixels.dtype != second.pixels.dtype:
        first, second = (replace(one, pixels=as_unit_float(one.pixels)) for one in (first, second))
    batches = (one.pixels[some] for one in (first, second) for some in row_chunks(one.pixels))
    pixels = gather(batches, len(first) + len(second), IMAGES_LIMIT)
    return ImageSet(pixels=pixels, labels=torch.cat([first.labels, second.labels]), classes=first.classes)


def _without(images: ImageSet, splits: Splits) -> ImageSet:
    known = {bytes(image.numpy()) for part in (splits.private, splits.test) for image in part.pixels}
    kept = [place for place, image in enumerate(images.pixels) if bytes(image.numpy()) not in known]
    return images.select(torch.tensor(kept, dtype=torch.int64))
