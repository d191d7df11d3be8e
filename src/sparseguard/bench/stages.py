"""The stages of a case: fit the target, look at its leak, attack it."""

from __future__ import annotations

import time
from typing import Any

import torch

from sparseguard.bench.keys import Job
from sparseguard.bench.recipe import Recipe
from sparseguard.bench.store import Store
from sparseguard.defenses import Context, Defense
from sparseguard.errors import RecipeError
from sparseguard.progress import Progress
from sparseguard.record import TargetFacts
from sparseguard.seeds import derive
from sparseguard.targets import Keep, Target, state_hash, train
from sparseguard.targets.checkpoint import load_weights
from sparseguard.types import Splits


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


def untrained_target(recipe: Recipe, job: Job, splits: Splits, store: Store, device: torch.device) -> Target:
    """Return the case's target as it was before training, with its defense released: a reference for leaks."""
    defense: Defense = job.defense.piece
    backbone = job.threat.backbone
    seed = derive(purpose="fit", dataset=recipe.data.name, backbone=backbone.name, seed=job.seed)
    found = store.load_target(job.target_key)
    blueprint = defense.place(backbone.piece.blueprint(len(splits.private.classes)), found[1] if found else {})
    model = blueprint.build(splits.private.shape, lambda stage: derive(purpose="initial", stage=stage, seed=seed))
    model.to(device)
    defense.release(model)
    return Target(model=model, taps=dict(blueprint.taps), epochs=0, best_epoch=0)


def describe_target(
    target: Target, history: list[dict[str, float]], splits: Splits, job: Job, device: torch.device
) -> TargetFacts:
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
        history=history,
        held_out_n=len(splits.private) // 10,
        state_hash=fingerprint,
        state_hash_after=fingerprint,
    )
