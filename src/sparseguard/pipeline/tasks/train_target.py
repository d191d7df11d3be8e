"""Training of a case's target, and its facts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from sparseguard.core.checkpoint import load_weights
from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Progress
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import Blueprint, Shape, StagedModel
from sparseguard.defenses import Budget, Context, Defense, State
from sparseguard.pipeline.plan.cases import PlannedCase
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.store import Store, TrainingFacts
from sparseguard.pipeline.tasks.context import ReleasedTarget
from sparseguard.record import DefenseFacts, TargetFacts, TrainingCurves, figure_fields
from sparseguard.targets import CodeCache, Target, state_hash, train
from sparseguard.targets.training.flops import count_step_flops
from sparseguard.targets.training.loaders import count_held_out
from sparseguard.types import Splits

ACCURACY = {"test": "accuracy", "tuning": "accuracy select", "auxiliary_val": "accuracy attacker_val"}
"""The splits on which accuracy is measured, and the purpose for which noise is drawn there."""

PROBE = 64
"""Auxiliary images from which a defense computes figures of the released model."""


def fit_target(
    recipe: Recipe, job: PlannedCase, splits: Splits, store: Store, device: torch.device, progress: Progress
) -> tuple[Target, TrainingFacts, dict[str, float]]:
    """Return the case's released target, trained now or found in the store, and what was noted while training.

    The seed of training depends on the data set, the backbone and the run's seed, not on the defense: all defenses
    start from the same weights wherever their stages agree, and see the same batches.
    """
    defense: Defense = job.defense.component
    stored = store.load_target(job.target_key)
    if stored is None:
        state, prepared_in = _prepare(recipe, job, splits, store, device, progress)
    else:
        state, prepared_in = stored[1], 0.0
    model, blueprint = build_target(recipe, job, splits.private.shape, len(splits.private.classes), state)
    if stored is None:
        started = time.monotonic()
        history = train(
            model,
            defense,
            state,
            splits.private,
            recipe.training,
            seed=_seed(recipe, job),
            device=device,
            progress=progress,
            label=f"train {job.defense.label}",
            tap_stage=blueprint.resolve_tap(job.threat.tap),
            checkpoint=store.checkpoint(job.target_key),
            code_cache=CodeCache(folder=store.codes),
        )
        facts = TrainingFacts(
            epochs=history.epoch,
            best_epoch=history.best_epoch,
            history=history.history,
            codes=history.codes,
            step_flops=history.step_flops,
            plain_flops=_plain_flops(recipe, job, splits),
            seconds=time.monotonic() - started,
            prepare_seconds=prepared_in,
        )
        store.save_target(job.target_key, model.state_dict(), state, facts)
    else:
        weights, facts = stored[0], stored[2]
        load_weights(model, weights, store.folder / "targets" / job.target_key / "model.safetensors")
    model.to(device)
    defense.release(model)
    target = Target(model=model, taps=dict(blueprint.taps), epochs=facts.epochs, best_epoch=facts.best_epoch)
    probe = splits.auxiliary.batch(torch.arange(min(PROBE, len(splits.auxiliary)))).to(device)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(derive(purpose="facts", seed=job.seed))
        figures = defense.facts(model, probe, {name: value.to(device) for name, value in state.items()})
    return target, facts, {name: float(value) for name, value in figures.items()}


def build_untrained_target(
    recipe: Recipe, job: PlannedCase, splits: Splits, store: Store, device: torch.device
) -> Target:
    """Return the case's target as it was before training, with its defense released: a reference for leaks."""
    stored = store.load_target(job.target_key)
    state = stored[1] if stored else {}
    model, blueprint = build_target(recipe, job, splits.private.shape, len(splits.private.classes), state)
    model.to(device)
    job.defense.component.release(model)
    return Target(model=model, taps=dict(blueprint.taps), epochs=0, best_epoch=0)


def _seed(recipe: Recipe, job: PlannedCase) -> int:
    return derive(purpose="fit", dataset=recipe.data.name, backbone=job.threat.backbone.name, seed=job.seed)


def _undefended(job: PlannedCase, classes: int) -> Blueprint:
    """Return the undefended model, which knows where it will be attacked."""
    plain: Blueprint = job.threat.backbone.component.blueprint(classes)
    return replace(plain, tap=job.threat.tap)


def _prepare(
    recipe: Recipe, job: PlannedCase, splits: Splits, store: Store, device: torch.device, progress: Progress
) -> tuple[State, float]:
    """Return what the defense learned before its target exists, and the seconds it took; 0 where it is kept."""
    stored = store.load_prepared(job.target_key)
    if stored is not None:
        return stored, 0.0
    started = time.monotonic()
    count = len(splits.private) - count_held_out(len(splits.private))
    with torch.random.fork_rng():
        torch.manual_seed(derive(purpose="prepare", seed=_seed(recipe, job)))
        state = job.defense.component.prepare(
            Context(
                private=splits.private,
                auxiliary=splits.auxiliary,
                blueprint=_undefended(job, len(splits.private.classes)),
                seed=_seed(recipe, job),
                budget=Budget(
                    images=count, batch_size=min(recipe.training.batch_size, count), epochs=recipe.training.epochs
                ),
                device=device,
                progress=progress,
                label=f"prepare {job.defense.label}",
            )
        )
    state = {name: value.detach().cpu() for name, value in state.items()}
    if state:
        store.save_prepared(job.target_key, state)
    return state, time.monotonic() - started


def build_target(
    recipe: Recipe, job: PlannedCase, shape: Shape, classes: int, state: State
) -> tuple[StagedModel, Blueprint]:
    """Return a case's untrained target and its blueprint, for images of a shape in so many classes.

    Raises:
        RecipeError: when the defense cannot be built on the backbone.
    """
    seed = _seed(recipe, job)
    try:
        blueprint = job.defense.component.edit_blueprint(_undefended(job, classes), state)
        model = blueprint.build(shape, lambda stage: derive(purpose="initial", stage=stage, seed=seed))
        _require_logits(model, shape, classes)
    except (ValueError, RuntimeError, RecipeError) as error:
        raise RecipeError(
            f"[[defenses]] '{job.defense.label}' cannot be built on '{job.threat.backbone.label}', attacked at "
            f"'{job.threat.tap}', for images of {shape}: {error}"
        ) from error
    return model, blueprint


@torch.no_grad()
def _require_logits(model: StagedModel, shape: Shape, classes: int) -> None:
    with torch.random.fork_rng(devices=[]):
        shape_of_logits = tuple(model.eval()(torch.zeros(2, *shape)).shape[1:])
    if shape_of_logits != (classes,):
        raise RecipeError(
            f"it leaves values of shape {shape_of_logits} where {classes} logits should be. Choose another tap."
        )


def _plain_flops(recipe: Recipe, job: PlannedCase, splits: Splits) -> int:
    plain = _undefended(job, len(splits.private.classes)).build(splits.private.shape, lambda _: 0).train()
    count = len(splits.private) - count_held_out(len(splits.private))
    return count_step_flops(plain, splits.private.shape, min(recipe.training.batch_size, count))


def describe_target(subject: ReleasedTarget, splits: Splits, job: PlannedCase, device: torch.device) -> TargetFacts:
    """Measure the target's accuracy with the defense active: on test, and where settings of defenses are chosen."""
    target, facts = subject.target, subject.facts
    counts = torch.bincount(splits.test.labels)
    fingerprint = state_hash(target.model)
    misclassified = {
        split: target.find_misclassified(splits.by_name()[split], device, derive(purpose=purpose, seed=job.seed))
        for split, purpose in ACCURACY.items()
    }
    return TargetFacts(
        accuracy=1 - len(misclassified["test"]) / len(splits.test),
        accuracy_n=len(splits.test),
        misclassified=misclassified,
        majority_rate=int(counts.max()) / len(splits.test),
        parameters=target.parameters,
        epochs=target.epochs,
        best_epoch=target.best_epoch,
        history=_curves(facts.history),
        held_out_n=count_held_out(len(splits.private)) if facts.history else 0,
        step_flops=facts.step_flops,
        relative_cost=facts.step_flops / facts.plain_flops if facts.step_flops and facts.plain_flops else None,
        defense=DefenseFacts.model_validate(figure_fields(subject.defense_figures, DefenseFacts.model_fields)),
        state_hash=fingerprint,
        state_hash_after=fingerprint,
    )


def _curves(history: Sequence[Mapping[str, float]]) -> TrainingCurves:
    return TrainingCurves(
        train_loss=[epoch["train_loss"] for epoch in history],
        held_out_loss=[epoch["held_out_loss"] for epoch in history],
        held_out_accuracy=[epoch["held_out_accuracy"] for epoch in history],
    )
