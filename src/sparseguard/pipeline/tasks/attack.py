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
from sparseguard.pipeline.plan.first_release import translate_label
from sparseguard.pipeline.recipe.conditions import Conditions, select_attacked, select_known
from sparseguard.pipeline.recipe.entries import NamedAttack
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.scoring.images import list_scored_splits
from sparseguard.pipeline.store import Store, StoredAttack
from sparseguard.pipeline.tasks.observe import TapObserver
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
class AttackRunner:
    """Runs a case's attacks in the recipe's order and keeps the results that later ones may start from.

    Args:
        recipe: the recipe.
        job: the case.
        splits: the images.
        store: where finished attacks are kept.
        device: where to train.
        progress: where progress is reported.
        observed: observes the target's tap.
        untrained: returns the same for the target before training.
        priors: the generators that attacks use.
    """

    recipe: Recipe
    job: PlannedCase
    splits: Splits
    store: Store
    device: torch.device
    progress: Progress
    observed: TapObserver
    untrained: Callable[[], TapObserver]
    priors: Priors
    done: dict[str, StoredAttack] = field(default_factory=dict)

    def run(self, attack: NamedAttack) -> StoredAttack:
        """Return the result of an attack, from the store or from running it.

        Raises:
            NotApplicable: when it does not apply to this target.
            TrainingError: when its training or its result is not finite.
        """
        if attack.conditions.queries > 1 and self.observed.noise_ratio < SAME:
            raise NotApplicable("the target answers equal queries equally, so that repeating them tells nothing")
        if attack.conditions.control == "shuffled-features" and not attack.component.learns_from_features:
            raise NotApplicable("it does not learn from features, so shuffling them changes nothing")
        stored = self.store.load_attack(self.job.attack_keys[attack.label]) or self._run(attack)
        self.done[attack.label] = stored
        return stored

    def indices(self, attack: NamedAttack) -> dict[str, Tensor | None]:
        """Return split to the indices of the attacked images; None for all of the split."""
        splits = self.splits.by_name()
        known = {"private": attack.conditions.known_private}
        return {
            split: select_attacked(len(splits[split]), attack.max_images, known.get(split, 0.0))
            for split in self._attacked_splits(attack)
        }

    def _attacked_splits(self, attack: NamedAttack) -> list[str]:
        """Return the attacked splits: an attack with fewer or other auxiliary data has another auxiliary_val."""
        own = attack.conditions.auxiliary_fraction == 1 and attack.conditions.dataset is None
        return [split for split in list_scored_splits(self.splits) if own or split != "auxiliary_val"]

    def _run(self, attack: NamedAttack) -> StoredAttack:
        job, conditions, component = self.job, attack.conditions, attack.component
        tap = self.untrained() if conditions.control == "untrained-target" else self.observed
        indices = self.indices(attack)
        label = f"{job.threat.name}: {job.defense.label}: {attack.label}"
        context = AttackContext(
            auxiliary=select_auxiliary(self.splits, conditions),
            seed=derive(purpose="attack", attack=translate_label(attack.name), threat=job.threat.name, seed=job.seed),
            device=self.device,
            progress=self.progress,
            label=label,
            earlier=self._earlier(attack, indices),
            prior=self.priors.get(attack),
        )
        access = tap.grant_access(attack.knowledge, translate_label(attack.label), conditions)
        started = time.monotonic()
        try:
            result, outside = component(access, self._inputs(attack, tap, indices), context)
        except (ArithmeticError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            raise TrainingError(f"{label}: {error}") from error
        facts = {
            "parameter_change": result.parameter_change,
            "outside_range": outside,
            "notes": dict(result.diagnostics),
            "curves": {name: [float(value) for value in curve] for name, curve in result.curves.items()},
            "residuals": {split: values.tolist() for split, values in result.residuals.items()},
            "public_queries": access.queries,
            "seconds": time.monotonic() - started,
        }
        return self.store.save_attack(job.attack_keys[attack.label], result.reconstructions, facts)

    def _inputs(self, attack: NamedAttack, tap: TapObserver, indices: Mapping[str, Tensor | None]) -> AttackInputs:
        observations = None if attack.knowledge in FLOORS else tap.observations(attack.conditions.queries)
        goal = {}
        for split, places in indices.items():
            images = self.splits.by_name()[split]
            rows = torch.arange(len(images)) if places is None else places
            observation = None if observations is None else observations[split]
            if observation is not None and places is not None:
                chosen = select_rows(observation.features, places, tap_limit())
                observation = Observation(features=chosen, tap=observation.tap)
            goal[split] = AttackInput(
                count=len(rows),
                observation=observation,
                labels=images.labels[rows] if attack.knowledge == Knowledge.LABEL else None,
                index=places,
            )
        return goal

    def _earlier(self, attack: NamedAttack, indices: Mapping[str, Tensor | None]) -> dict[str, dict[str, Tensor]]:
        """Return the reconstructions of the best earlier attack of each knowledge."""
        if "auxiliary_val" not in indices:
            return {}
        places, val = indices["auxiliary_val"], self.splits.auxiliary_val
        truth = val.images if places is None else val.batch(places)
        best: dict[str, tuple[float, dict[str, Tensor]]] = {}
        for other in select_earlier(self.recipe, attack):
            if other.label in self.done:
                reconstructions = self._align(other, indices)
                error = float((reconstructions["auxiliary_val"] - truth).square().mean())
                best[other.knowledge] = min(
                    best.get(other.knowledge, (error, reconstructions)),
                    (error, reconstructions),
                    key=lambda entry: entry[0],
                )
        return {level: reconstructions for level, (_, reconstructions) in best.items()}

    def _align(self, attack: NamedAttack, indices: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """Select the reconstructions of ``attack`` of the images at ``index``, a subset of those it attacked."""
        own, aligned = self.indices(attack), dict[str, Tensor]()
        for split, reconstructions in self.done[attack.label].reconstructions.items():
            if split in indices:
                places, attacked = indices[split], own[split]
                rows = places if attacked is None or places is None else torch.searchsorted(attacked, places)
                aligned[split] = reconstructions if rows is None else reconstructions[rows]
        return aligned


def select_auxiliary(splits: Splits, conditions: Conditions) -> AuxiliaryData:
    """Return the auxiliary data under ``conditions``: none of test, and of private those that are known.

    Copies of images to be reconstructed are left out of another data set.

    Raises:
        RecipeError: when the other data set's images have another size.
        DataError: when it cannot be read, or the fraction leaves fewer images than classes.
    """
    train, val = splits.auxiliary, splits.auxiliary_val
    if conditions.dataset is not None:
        location = {"path": conditions.path} if conditions.path else {}
        other = parse(
            DATASETS[conditions.dataset], location, f"[[attacks]] conditions data '{conditions.dataset}'"
        ).load()
        if other.private.shape != splits.private.shape:
            raise RecipeError(
                f"[[attacks]] conditions: images of '{conditions.dataset}' have the shape {other.private.shape}, "
                f"those of '{splits.name}' {splits.private.shape}. Choose another set."
            )
        train, val = (
            balanced_subset(other_images, min(len(own), len(other_images)), what=f"images of {conditions.dataset}")
            for own, other_images in (
                (train, _without(other.auxiliary, splits)),
                (val, _without(other.auxiliary_val, splits)),
            )
        )
    if conditions.auxiliary_fraction < 1:
        minimum = len(splits.private.classes)
        train, val = (
            balanced_subset(
                images, max(minimum, round(conditions.auxiliary_fraction * len(images))), what="attacker's images"
            )
            for images in (train, val)
        )
    if conditions.known_private:
        train = _concatenate(train, splits.private.select(select_known(len(splits.private), conditions.known_private)))
    return AuxiliaryData(train=train, val=val)


def _concatenate(first: ImageSet, second: ImageSet) -> ImageSet:
    if first.pixels.dtype != second.pixels.dtype:
        first, second = (replace(images, pixels=as_unit_float(images.pixels)) for images in (first, second))
    batches = (images.pixels[rows] for images in (first, second) for rows in row_chunks(images.pixels))
    pixels = gather(batches, len(first) + len(second), IMAGES_LIMIT)
    return ImageSet(pixels=pixels, labels=torch.cat([first.labels, second.labels]), classes=first.classes)


def _without(images: ImageSet, splits: Splits) -> ImageSet:
    known = {bytes(image.numpy()) for split in (splits.private, splits.test) for image in split.pixels}
    rest = [index for index, image in enumerate(images.pixels) if bytes(image.numpy()) not in known]
    return images.select(torch.tensor(rest, dtype=torch.int64))
