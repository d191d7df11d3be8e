"""Attacking, scoring and checking one case."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from sparseguard.attacks.base import NotApplicable
from sparseguard.checks import Evidence, raised
from sparseguard.core.seeding import derive
from sparseguard.pipeline.plan.cases import PlannedCase
from sparseguard.pipeline.recipe.entries import NamedAttack
from sparseguard.pipeline.scoring.descriptions import describe_image_metrics, describe_set_metrics
from sparseguard.pipeline.scoring.images import Contender, as_bytes, choose, gallery_index, score, summarize
from sparseguard.pipeline.scoring.paired import compare
from sparseguard.pipeline.scoring.scorers import measure_bounds
from sparseguard.pipeline.store import StoredAttack
from sparseguard.pipeline.tasks.attack import Attacks
from sparseguard.pipeline.tasks.context import Subject
from sparseguard.pipeline.tasks.observe import Observed
from sparseguard.pipeline.tasks.recipe_config import describe_conditions, hyperparameters
from sparseguard.pipeline.tasks.record import Run, flags_of, provenance_of, record_of
from sparseguard.pipeline.tasks.train_target import describe_target, untrained_target
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


def measured(this: Run, job: PlannedCase, subject: Subject) -> tuple[Record, dict[str, Tensor]]:
    """Return a case's record and the pictures beside it.

    Raises:
        TrainingError: when an attack ended in values that mean nothing.
    """
    target = subject.target
    facts = describe_target(subject, this.splits, job, this.device)
    observed = Observed(target, subject.model, job, this.splits, this.device)
    attacked: list[FeatureInversionAttack] = []
    scored: dict[str, Contender] = {}
    skipped: dict[str, str] = {}
    gallery = gallery_index(len(this.splits.private))
    pictures = {"gallery/original": as_bytes(this.splits.private.batch(gallery))}
    seconds = {"prepare": subject.facts.prepare_seconds, "fit": subject.facts.seconds}
    auxiliary_queries = 0

    @cache
    def untrained() -> Observed:
        before = untrained_target(this.recipe, job, this.splits, this.store, this.device)
        return Observed(before, before.model, job, this.splits, this.device)

    attacks = Attacks(
        recipe=this.recipe,
        job=job,
        splits=this.splits,
        store=this.store,
        device=this.device,
        progress=this.progress,
        observed=observed,
        untrained=untrained,
        priors=this.priors,
    )
    with this.progress.task(f"{job.threat.name}: {job.defense.label}: attack, score", len(this.recipe.attacks)) as go:
        for named in this.recipe.attacks:
            try:
                stored = attacks.run(named)
            except NotApplicable as reason:
                skipped[named.label] = str(reason)
                continue
            finally:
                go(1)
            index = attacks.index(named)
            scores = score(stored.reconstructions, this.splits, index)
            sets = _judged(this, named, stored, index, scores)
            parts = this.splits.by_name()
            places = {part: list(range(len(parts[part]))) if at is None else at.tolist() for part, at in index.items()}
            some = {part: places[part] for part, at in index.items() if at is not None}
            attacked.append(_describe_attack(this, named, stored, scores, sets, some))
            scored[named.label] = Contender(
                name=named.label,
                knowledge=named.knowledge,
                queries=named.conditions.queries,
                indices=places,
                scores=scores,
            )
            pictures |= _pictures(named.label, stored, scores, places["private"], gallery.tolist())
            seconds[f"attack {named.label}"] = stored.facts["seconds"]
            auxiliary_queries = max(auxiliary_queries, stored.facts["public_queries"])
    facts = facts.model_copy(update={"state_hash_after": state_hash(target.model)})
    few = this.splits.auxiliary.batch(torch.arange(min(64, len(this.splits.auxiliary)))).to(this.device)
    with torch.no_grad():
        inactive = job.defense.component.find_inactivity(target.model, few)
    chosen = choose([scored[named.label] for named in this.recipe.attacks if named.eligible and named.label in scored])
    asked = [named for named in this.recipe.attacks if named.label in scored and named.knowledge not in FLOORS]
    evidence = Evidence(
        target=facts,
        features=observed.describe(auxiliary_queries, {named.conditions.queries for named in asked}),
        attacks=attacked,
        chosen=chosen,
        comparisons=compare(this.recipe.attacks, scored, chosen),
        randomizes=job.defense.component.randomizes,
        inactive=inactive,
        duplicates=this.duplicates,
    )
    outcome = FeatureInversionOutcome(
        kind="feature-inversion",
        metrics=_describe_metrics(attacked),
        attacks=attacked,
        chosen=chosen,
        skipped=skipped,
        comparisons=list(evidence.comparisons),
        bounds=_bounds(this, job, target),
    )
    record = record_of(
        this,
        job,
        status="ok",
        target=facts,
        features=evidence.features,
        outcome=outcome,
        flags=flags_of(this.recipe, job, raised(evidence)),
        provenance=provenance_of(this, seconds, subject.facts.codes or None),
    )
    return record, pictures


def _judged(
    this: Run,
    named: NamedAttack,
    stored: StoredAttack,
    index: dict[str, Tensor | None],
    scores: dict[str, dict[str, Tensor]],
) -> dict[str, dict[str, SetScore]]:
    """Add the scores of the recipe's judges to ``scores``, and return those of whole sets, by part."""
    sets = {}
    for part, made in stored.reconstructions.items():
        images = this.splits.by_name()[part]
        places = index[part]
        every = torch.arange(len(images)) if places is None else places
        originals = images.batch(every)
        scores[part] |= this.bench.per_image(made, originals, images.labels[every])
        wanted = part != "auxiliary_val" and (named.eligible or named.component.floor)
        if wanted and (found := this.bench.of_set(made, originals)):
            sets[part] = found
    return sets


def _bounds(this: Run, job: PlannedCase, target: Target) -> list[Bound]:
    if not this.recipe.scoring.bounds:
        return []
    found = this.store.load_bounds(job.bounds_key)
    if found is None:
        stage = target.taps[job.threat.tap]
        seed = derive(purpose="bounds", threat=job.threat.name, seed=job.seed)
        found = measure_bounds(this.recipe.scoring, target.model, stage, this.splits, this.device, seed, this.progress)
        this.store.save_bounds(job.bounds_key, found)
    return found


def _describe_attack(
    this: Run,
    named: NamedAttack,
    stored: StoredAttack,
    scores: dict[str, dict[str, Tensor]],
    sets: dict[str, dict[str, SetScore]],
    index: dict[str, list[int]],
) -> FeatureInversionAttack:
    facts = stored.facts
    return FeatureInversionAttack(
        name=named.label,
        attack=named.name,
        hyperparameters=hyperparameters(named),
        conditions=describe_conditions(named),
        knowledge=named.knowledge.value,
        queries=named.conditions.queries,
        floor=named.component.floor,
        prior=this.priors.facts_of(named),
        eligible=named.eligible,
        indices=index,
        parameter_change=facts["parameter_change"],
        outside_range=facts["outside_range"],
        diagnostics=FeatureInversionDiagnostics.model_validate(
            figure_fields(facts["notes"], FeatureInversionDiagnostics.model_fields)
        ),
        curves=Curves.model_validate(curve_fields(facts["curves"])),
        residuals={part: summarize(torch.tensor(values)) for part, values in facts["residuals"].items()},
        set_scores=sets,
        scores={
            part: {metric: summarize(values) for metric, values in metrics.items()} for part, metrics in scores.items()
        },
    )


def _describe_metrics(attacks: Sequence[FeatureInversionAttack]) -> dict[str, MetricDescription]:
    of_images = (name for attack in attacks for metrics in attack.scores.values() for name in metrics)
    of_sets = (name for attack in attacks for scores in attack.set_scores.values() for name in scores)
    return {**describe_image_metrics(of_images), **describe_set_metrics(of_sets)}


def _pictures(
    label: str, stored: StoredAttack, scores: dict[str, dict[str, Tensor]], places: list[int], gallery: list[int]
) -> dict[str, Tensor]:
    """What of the gallery an attack made, and its scores per image; an attack of few images has a shorter gallery."""
    at = {place: row for row, place in enumerate(places)}
    rows = [at[place] for place in gallery if place in at]
    pictures = {f"gallery/{label}": as_bytes(stored.reconstructions["private"][rows])}
    for part, metrics in scores.items():
        pictures |= {f"scores/{label}/{part}/{metric}": values for metric, values in metrics.items()}
    return pictures
