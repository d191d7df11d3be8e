"""The stages of a case: fit the target, look at its leak, attack it."""

from __future__ import annotations

import time
from typing import Any

import torch

from sparseguard.attacks import AttackContext
from sparseguard.bench.keys import Job
from sparseguard.bench.recipe import Named, Recipe
from sparseguard.bench.score import effective_rank, scored_parts
from sparseguard.bench.store import Store, StoredAttack
from sparseguard.defenses import Context, Defense
from sparseguard.errors import RecipeError, TrainingError
from sparseguard.leak import Leak
from sparseguard.progress import Progress
from sparseguard.record import Leaked, TargetFacts
from sparseguard.seeds import derive
from sparseguard.targets import Keep, Target, state_hash, train
from sparseguard.targets.checkpoint import load_weights
from sparseguard.types import FLOORS, Attacked, Knowledge, Observation, Public, Released, Splits


def fit_target(
    recipe: Recipe, job: Job, splits: Splits, store: Store, device: torch.device, progress: Progress
) -> tuple[Target, dict[str, Any]]:
    """Return the case's released target, trained now or found in the store, and what was noted while training.

    The seed of training depends on the data set, the backbone and the run's seed, not on the defense: all defenses
    start from the same weights wherever their stages agree, and see the same batches.
    """
    defense: Defense = job.defense.piece
    backbone = job.threat.backbone
    seed = derive(purpose="fit", dataset=recipe.data.name, backbone=backbone.name, seed=job.seed)
    plain = backbone.piece.blueprint(len(splits.private.classes))
    found = store.load_target(job.target_key)
    if found is None:
        context = Context(
            private=splits.private, public=splits.attacker_train, blueprint=plain, tap=job.threat.tap, seed=seed
        )
        state = defense.prepare(context)
    else:
        state = found[1]
    blueprint = defense.place(plain, state)
    try:
        model = blueprint.build(splits.private.shape, lambda stage: derive(purpose="initial", stage=stage, seed=seed))
    except (ValueError, RuntimeError) as error:
        raise RecipeError(
            f"[[defenses]] '{job.defense.label}' cannot be built on '{backbone.label}' for images of "
            f"{splits.private.shape}: {error}"
        ) from error
    if found is None:
        started = time.monotonic()
        fitted = train(
            model,
            defense,
            state,
            splits.private,
            recipe.fit,
            seed=seed,
            device=device,
            progress=progress,
            label=f"train {job.defense.label}",
            checkpoint=store.checkpoint(job.target_key),
            keep=Keep(folder=store.codes),
        )
        facts: dict[str, Any] = {
            "epochs": fitted.epoch,
            "best_epoch": fitted.best_epoch,
            "history": fitted.history,
            "codes": fitted.codes,
            "seconds": time.monotonic() - started,
        }
        store.save_target(job.target_key, model.state_dict(), state, facts)
    else:
        weights, facts = found[0], found[2]
        load_weights(model, weights, store.folder / "targets" / job.target_key / "model.safetensors")
    model.to(device)
    defense.release(model)
    return Target(model=model, taps=dict(blueprint.taps), epochs=facts["epochs"], best_epoch=facts["best_epoch"]), facts


def describe_target(target: Target, splits: Splits, job: Job, device: torch.device) -> TargetFacts:
    """Measure the target's accuracy on test, with the defense active."""
    counts = torch.bincount(splits.test.labels)
    fingerprint = state_hash(target.model)
    return TargetFacts(
        accuracy=target.accuracy(splits.test, device, derive(purpose="accuracy", seed=job.seed)),
        accuracy_n=len(splits.test),
        majority_rate=int(counts.max()) / len(splits.test),
        parameters=target.parameters,
        epochs=target.epochs,
        best_epoch=target.best_epoch,
        state_hash=fingerprint,
        state_hash_after=fingerprint,
    )


class Observed:
    """One target's tap: what leaked of the attacked images, and leaks for attacks to hold.

    Args:
        target: the released target.
        model: what is queried; the target's model, or one that remembers its answers.
        job: the case.
        splits: the images.
        device: where the model is.
    """

    def __init__(self, target: Target, model: Released, job: Job, splits: Splits, device: torch.device) -> None:
        self._job = job
        self._splits = splits
        self._device = device
        self._stage = target.taps[job.threat.tap]
        self._model: Released = target.model
        few = splits.attacker_train.select(torch.arange(min(64, len(splits.attacker_train))))
        probe = self.leak(Knowledge.OUTPUTS, "probe")
        first, second = probe.observe(few).features, probe.observe(few).features
        self.noise_ratio = float((first - second).square().mean().sqrt()) / (float(first.std()) or 1.0)
        self._model = model
        runner = self.leak(Knowledge.OUTPUTS, "private")
        self.observations: dict[str, Observation] = {
            part: runner.observe(splits.parts()[part]) for part in scored_parts(splits)
        }
        self.private_queries = runner.queries
        self._public = self.leak(Knowledge.OUTPUTS, "rank").observe(splits.attacker_train)

    def leak(self, knowledge: Knowledge, purpose: str) -> Leak:
        """Return a leak whose noise is its own."""
        job = self._job
        seed = derive(purpose=f"leak {purpose}", threat=job.threat.name, tap=job.threat.tap, seed=job.seed)
        return Leak(
            self._model, tap=job.threat.tap, stage=self._stage, knowledge=knowledge, seed=seed, device=self._device
        )

    def describe(self, public_queries: int) -> Leaked:
        """Return the facts of the tap."""
        shape = tuple(self._public.features.shape[1:])
        return Leaked(
            shape=shape,
            dimension=int(self._public.features[0].numel()),
            effective_rank=effective_rank(self._public.features),
            noise_ratio=self.noise_ratio,
            queries={"private": self.private_queries, "public": public_queries},
        )

    def attack(self, named: Named, progress: Progress, store: Store) -> StoredAttack:
        """Run one attack and keep its reconstructions."""
        job, splits, piece = self._job, self._splits, named.piece
        goal = {}
        for part in scored_parts(splits):
            images = splits.parts()[part]
            goal[part] = Attacked(
                count=len(images),
                observation=None if piece.knowledge in FLOORS else self.observations[part],
                labels=images.labels if piece.knowledge == Knowledge.LABEL else None,
            )
        label = f"{job.threat.name}: {job.defense.label}: {named.label}"
        context = AttackContext(
            public=Public(train=splits.attacker_train, val=splits.attacker_val),
            seed=derive(purpose="attack", attack=named.name, threat=job.threat.name, seed=job.seed),
            device=self._device,
            progress=progress,
            label=label,
        )
        leak = self.leak(piece.knowledge, named.label)
        started = time.monotonic()
        try:
            result, outside = piece(leak, goal, context)
        except ArithmeticError as error:
            raise TrainingError(f"{label}: {error}") from error
        facts = {
            "parameter_change": result.parameter_change,
            "outside_range": outside,
            "notes": dict(result.notes),
            "public_queries": leak.queries,
            "seconds": time.monotonic() - started,
        }
        return store.save_attack(job.attack_keys[named.label], result.reconstructions, facts)
