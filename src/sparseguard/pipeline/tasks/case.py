"""Attacks, scores and checks of one feature inversion case."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from sparseguard.attacks.base import NotApplicable
from sparseguard.checks import Evidence, find_flags
from sparseguard.core.seeding import derive
from sparseguard.pipeline.plan.cases import PlannedCase
from sparseguard.pipeline.recipe.entries import NamedAttack
from sparseguard.pipeline.scoring.descriptions import describe_image_metrics, describe_set_metrics
from sparseguard.pipeline.scoring.images import ScoredAttack, choose, score, select_gallery, summarize, to_bytes
from sparseguard.pipeline.scoring.paired import compare
from sparseguard.pipeline.scoring.scorers import measure_bounds
from sparseguard.pipeline.store import StoredAttack
from sparseguard.pipeline.tasks.attack import AttackRunner
from sparseguard.pipeline.tasks.context import ReleasedTarget
from sparseguard.pipeline.tasks.observe import TapObserver
from sparseguard.pipeline.tasks.recipe_config import describe_conditions, hyperparameters
from sparseguard.pipeline.tasks.record import RunContext, describe_provenance, make_flags, make_record
from sparseguard.pipeline.tasks.train_target import build_untrained_target, describe_target
from sparseguard.record import (
    Bound,
    Curves,
    FeatureInversionAttack,
    FeatureInversionDiagnostics,
    FeatureInversionOutcome,
    MetricDescription,
    Record,
    SetScore,
    curve_fields,
    figure_fields,
)
from sparseguard.targets import Target, state_hash
from sparseguard.types import FLOORS


def run_case(context: RunContext, job: PlannedCase, subject: ReleasedTarget) -> tuple[Record, dict[str, Tensor]]:
    """Return a case's record and the pictures beside it.

    Raises:
        TrainingError: when an attack ended in values that mean nothing.
    """
    target = subject.target
    facts = describe_target(subject, context.splits, job, context.device)
    observed = TapObserver(target, subject.model, job, context.splits, context.device)
    described: list[FeatureInversionAttack] = []
    scored: dict[str, ScoredAttack] = {}
    skipped: dict[str, str] = {}
    gallery = select_gallery(len(context.splits.private))
    pictures = {"gallery/original": to_bytes(context.splits.private.batch(gallery))}
    seconds = {"prepare": subject.facts.prepare_seconds, "fit": subject.facts.seconds}
    auxiliary_queries = 0

    @cache
    def untrained() -> TapObserver:
        before = build_untrained_target(context.recipe, job, context.splits, context.store, context.device)
        return TapObserver(before, before.model, job, context.splits, context.device)

    attacks = AttackRunner(
        recipe=context.recipe,
        job=job,
        splits=context.splits,
        store=context.store,
        device=context.device,
        progress=context.progress,
        observed=observed,
        untrained=untrained,
        priors=context.priors,
    )
    with context.progress.task(
        f"{job.threat.name}: {job.defense.label}: attack, score", len(context.recipe.attacks)
    ) as advance:
        for attack in context.recipe.attacks:
            try:
                stored = attacks.run(attack)
            except NotApplicable as reason:
                skipped[attack.label] = str(reason)
                continue
            finally:
                advance(1)
            index = attacks.indices(attack)
            scores = score(stored.reconstructions, context.splits, index)
            sets = _score_sets(context, attack, stored, index, scores)
            splits = context.splits.by_name()
            indices = {
                split: list(range(len(splits[split]))) if attacked is None else attacked.tolist()
                for split, attacked in index.items()
            }
            subset = {split: indices[split] for split, attacked in index.items() if attacked is not None}
            described.append(_describe_attack(context, attack, stored, scores, sets, subset))
            scored[attack.label] = ScoredAttack(
                name=attack.label,
                knowledge=attack.knowledge,
                queries=attack.conditions.queries,
                indices=indices,
                scores=scores,
            )
            pictures |= _pictures(attack.label, stored, scores, indices["private"], gallery.tolist())
            seconds[f"attack {attack.label}"] = stored.facts["seconds"]
            auxiliary_queries = max(auxiliary_queries, stored.facts["public_queries"])
    facts = facts.model_copy(update={"state_hash_after": state_hash(target.model)})
    probe = context.splits.auxiliary.batch(torch.arange(min(64, len(context.splits.auxiliary)))).to(context.device)
    with torch.no_grad():
        inactive = job.defense.component.find_inactivity(target.model, probe)
    chosen = choose(
        [scored[attack.label] for attack in context.recipe.attacks if attack.eligible and attack.label in scored]
    )
    querying = [
        attack for attack in context.recipe.attacks if attack.label in scored and attack.knowledge not in FLOORS
    ]
    evidence = Evidence(
        target=facts,
        features=observed.describe(auxiliary_queries, {attack.conditions.queries for attack in querying}),
        attacks=described,
        chosen=chosen,
        comparisons=compare(context.recipe.attacks, scored, chosen),
        randomizes=job.defense.component.randomizes,
        inactive=inactive,
        duplicates=context.duplicates,
    )
    outcome = FeatureInversionOutcome(
        kind="feature-inversion",
        metrics=_describe_metrics(described),
        attacks=described,
        chosen=chosen,
        skipped=skipped,
        comparisons=list(evidence.comparisons),
        bounds=_bounds(context, job, target),
    )
    record = make_record(
        context,
        job,
        status="ok",
        target=facts,
        features=evidence.features,
        outcome=outcome,
        flags=make_flags(context.recipe, job, find_flags(evidence)),
        provenance=describe_provenance(context, seconds, subject.facts.codes or None),
    )
    return record, pictures


def _score_sets(
    context: RunContext,
    attack: NamedAttack,
    stored: StoredAttack,
    index: dict[str, Tensor | None],
    scores: dict[str, dict[str, Tensor]],
) -> dict[str, dict[str, SetScore]]:
    """Add the scores of evaluators and LPIPS to ``scores``, and return those of whole sets, by split."""
    sets: dict[str, dict[str, SetScore]] = {}
    for split, reconstructions in stored.reconstructions.items():
        images = context.splits.by_name()[split]
        attacked = index[split]
        rows = torch.arange(len(images)) if attacked is None else attacked
        originals = images.batch(rows)
        scores[split] |= context.scorers.score_images(reconstructions, originals, images.labels[rows])
        scored = split != "auxiliary_val" and (attack.eligible or attack.component.floor)
        if scored and (scores_of_set := context.scorers.score_set(reconstructions, originals)):
            sets[split] = scores_of_set
    return sets


def _bounds(context: RunContext, job: PlannedCase, target: Target) -> list[Bound]:
    if not context.recipe.scoring.bounds:
        return []
    bounds = context.store.load_bounds(job.bounds_key)
    if bounds is None:
        stage = target.taps[job.threat.tap]
        seed = derive(purpose="bounds", threat=job.threat.name, seed=job.seed)
        bounds = measure_bounds(
            context.recipe.scoring, target.model, stage, context.splits, context.device, seed, context.progress
        )
        context.store.save_bounds(job.bounds_key, bounds)
    return bounds


def _describe_attack(
    context: RunContext,
    attack: NamedAttack,
    stored: StoredAttack,
    scores: dict[str, dict[str, Tensor]],
    sets: dict[str, dict[str, SetScore]],
    index: dict[str, list[int]],
) -> FeatureInversionAttack:
    facts = stored.facts
    return FeatureInversionAttack(
        name=attack.label,
        attack=attack.name,
        hyperparameters=hyperparameters(attack),
        conditions=describe_conditions(attack),
        knowledge=attack.knowledge.value,
        queries=attack.conditions.queries,
        floor=attack.component.floor,
        prior=context.priors.describe(attack),
        eligible=attack.eligible,
        indices=index,
        parameter_change=facts["parameter_change"],
        outside_range=facts["outside_range"],
        diagnostics=FeatureInversionDiagnostics.model_validate(
            figure_fields(facts["notes"], FeatureInversionDiagnostics.model_fields)
        ),
        curves=Curves.model_validate(curve_fields(facts["curves"])),
        residuals={split: summarize(torch.tensor(values)) for split, values in facts["residuals"].items()},
        set_scores=sets,
        scores={
            split: {metric: summarize(values) for metric, values in metrics.items()}
            for split, metrics in scores.items()
        },
    )


def _describe_metrics(attacks: Sequence[FeatureInversionAttack]) -> dict[str, MetricDescription]:
    of_images = (name for attack in attacks for metrics in attack.scores.values() for name in metrics)
    of_sets = (name for attack in attacks for scores in attack.set_scores.values() for name in scores)
    return {**describe_image_metrics(of_images), **describe_set_metrics(of_sets)}


def _pictures(
    label: str, stored: StoredAttack, scores: dict[str, dict[str, Tensor]], indices: list[int], gallery: list[int]
) -> dict[str, Tensor]:
    """Return an attack's reconstructions of the gallery, and its scores per image.

    An attack of few images has a shorter gallery.
    """
    row_of = {image: row for row, image in enumerate(indices)}
    rows = [row_of[image] for image in gallery if image in row_of]
    pictures = {f"gallery/{label}": to_bytes(stored.reconstructions["private"][rows])}
    for split, metrics in scores.items():
        pictures |= {f"scores/{label}/{split}/{metric}": values for metric, values in metrics.items()}
    return pictures
