"""Attacking, scoring and checking one case whose threat is to classes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from sparseguard.checks import Evidence, raised
from sparseguard.core.errors import DataError
from sparseguard.core.seeding import derive
from sparseguard.metrics import subset
from sparseguard.metrics.model_inversion import outlier_fraction, relative_diversity
from sparseguard.pipeline.plan.cases import PlannedCase
from sparseguard.pipeline.plan.classes import select_classes
from sparseguard.pipeline.recipe.entries import NamedClassAttack, Threat
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.scoring.classes import ClassScores, Labelled, Made
from sparseguard.pipeline.scoring.images import as_bytes
from sparseguard.pipeline.tasks.attack_classes import run_class_attack
from sparseguard.pipeline.tasks.context import Subject
from sparseguard.pipeline.tasks.observe import Observed
from sparseguard.pipeline.tasks.recipe_config import hyperparameters
from sparseguard.pipeline.tasks.record import Run, describe_evaluators, flags_of, provenance_of, record_of
from sparseguard.pipeline.tasks.train_target import describe_target
from sparseguard.record import (
    AttackedClass,
    ClassInversionAttack,
    ClassInversionDiagnostics,
    ClassInversionOutcome,
    PriorFacts,
    Record,
    figure_fields,
)
from sparseguard.targets import state_hash
from sparseguard.types import ClassResult, Splits, TargetClasses

SHOWN = 10
"""Images of each class in a record's pictures."""


def check_pools(recipe: Recipe, threat: Threat, splits: Splits) -> None:
    """Refuse a threat to classes of which there are too few images to compare with.

    Raises:
        DataError: naming the class and the part.
    """
    for name in select_classes(recipe, threat, splits.private.classes):
        label = splits.private.classes.index(name)
        for part, images in (("private", splits.private), ("test", splits.test)):
            count = int((images.labels == label).sum())
            if count < recipe.scoring.neighbors:
                raise DataError(
                    f"[[threats]] '{threat.name}': class '{name}' has {count} images in {part}, scores need at least "
                    f"{recipe.scoring.neighbors}. Attack other classes, or use more images."
                )


def measured_classes(this: Run, job: PlannedCase, subject: Subject) -> tuple[Record, dict[str, Tensor]]:
    """Return a case's record and the pictures beside it.

    Raises:
        TrainingError: when an attack ended in values that mean nothing.
    """
    target, splits = subject.target, this.splits
    facts = describe_target(subject, splits, job, this.device)
    observed = Observed(target, subject.model, job, splits, this.device)
    names = splits.private.classes
    wanted = [names.index(name) for name in select_classes(this.recipe, job.threat, names)]
    goal = TargetClasses(
        indices=tuple(wanted), names=names, shape=splits.private.shape, flips_keep_class=splits.flips_keep_class
    )
    judged = ClassScores(
        splits, wanted, this.bench.evaluators, this.bench.network, this.bench.real, this.recipe.scoring.neighbors
    )
    attacked: list[ClassInversionAttack] = []
    pictures = {"classes/private": _rows(judged.private, wanted)}
    seconds = {"prepare": subject.facts.prepare_seconds, "fit": subject.facts.seconds}
    for named in this.recipe.class_attacks:
        prior = this.priors.of(named)
        result, told = run_class_attack(
            named,
            goal,
            job=job,
            observed=observed,
            prior=prior,
            store=this.store,
            device=this.device,
            progress=this.progress,
        )
        made = _made(this, named, goal, result)
        attacked.append(_describe_attack(this, named, result, made, judged, goal))
        pictures |= _pictures(named, result, made, judged, wanted)
        seconds[f"attack {named.label}"] = told["seconds"]
    facts = facts.model_copy(update={"state_hash_after": state_hash(target.model)})
    few = splits.auxiliary.batch(torch.arange(min(64, len(splits.auxiliary)))).to(this.device)
    with torch.no_grad():
        inactive = job.defense.component.find_inactivity(target.model, few)
    evidence = Evidence(
        target=facts,
        features=observed.describe(0, set()),
        attacks=[],
        chosen=[],
        comparisons=[],
        randomizes=job.defense.component.randomizes,
        inactive=inactive,
        duplicates=this.duplicates,
        class_attacks=attacked,
        evaluators=describe_evaluators(judged.judges, judged.preferred),
    )
    names_of_scores = dict.fromkeys(name for attack in attacked for name in attack.scores)
    outcome = ClassInversionOutcome(
        kind="class-inversion",
        metrics={name: judged.describe(name) for name in names_of_scores},
        classes=[names[label] for label in wanted],
        pool=judged.pool,
        pairing=f"nearest private image of the class in the features of evaluator {judged.judges[0].name}",
        attacks=attacked,
    )
    record = record_of(
        this,
        job,
        status="ok",
        target=facts,
        features=evidence.features,
        outcome=outcome,
        evaluators=dict(evidence.evaluators),
        flags=flags_of(this.recipe, job, raised(evidence)),
        provenance=provenance_of(this, seconds),
    )
    return record, pictures


def _made(this: Run, named: NamedClassAttack, goal: TargetClasses, result: ClassResult) -> Made:
    """Part what an attack made, and add as many images made without an attack."""
    chosen = result.selected
    labels = result.labels[chosen]
    surest = torch.cat([_surest(result, label, int((labels == label).sum())) for label in goal.indices])
    seed = derive(purpose="chance", attack=named.name)
    loose = named.component.sample_prior(len(labels), goal, this.priors.of(named), seed)
    return Made(
        answer=Labelled(images=result.images[chosen], labels=labels),
        starts=Labelled(images=result.starts[surest], labels=result.labels[surest]),
        optimized=Labelled(images=result.images, labels=result.labels),
        chance=Labelled(images=result.starts[chosen] if loose is None else loose, labels=labels),
    )


def _surest(result: ClassResult, label: int, count: int) -> Tensor:
    """Return the places of the starts of a class that the target was surest of."""
    own = (result.labels == label).nonzero().squeeze(1)
    return own[result.start_confidence[own].argsort(descending=True, stable=True)[:count]]


def _describe_attack(
    this: Run, named: NamedClassAttack, result: ClassResult, made: Made, judged: ClassScores, goal: TargetClasses
) -> ClassInversionAttack:
    prior = this.priors.facts_of(named)
    if prior is not None:
        seen = prior.classes or []
        known = [goal.names[label] for label in goal.indices if goal.names[label] in seen]
        prior = prior.model_copy(update={"known_classes": known})
    figures = {**result.notes, **_of_answer(this, made, judged, prior)}
    return ClassInversionAttack(
        name=named.label,
        attack=named.name,
        hyperparameters=hyperparameters(named),
        knowledge=named.knowledge.value,
        control=named.component.control,
        prior=prior,
        classes={goal.names[label]: _facts(result, made, judged, label) for label in goal.indices},
        scores=judged.scores(made),
        agreement=judged.agreement(made),
        diagnostics=ClassInversionDiagnostics.model_validate(
            figure_fields(figures, ClassInversionDiagnostics.model_fields)
        ),
        loss_curves={name: list(curve) for name, curve in result.curves.items()},
    )


def _of_answer(this: Run, made: Made, judged: ClassScores, prior: PriorFacts | None) -> dict[str, float]:
    """Return how alike the answer's images are, and how far the prior's samples are from real images."""
    private, notes = judged.private, {}
    with suppress(ValueError):  # no class has two images
        notes["diversity"] = relative_diversity(made.answer.images, made.answer.labels, private.images, private.labels)
    if prior is not None:
        judge = judged.judges[0]
        for name, images in (("private", this.splits.private), ("auxiliary", this.splits.auxiliary)):
            some = judge.features(images.batch(subset(len(images))))
            notes[f"samples_far_from_{name}"] = outlier_fraction(made.chance.features(judge), some)
    return notes


def _facts(result: ClassResult, made: Made, judged: ClassScores, label: int) -> AttackedClass:
    own = (result.labels == label) & result.selected
    return AttackedClass(
        confidence=float(result.confidence[own].mean()),
        augmented_confidence=float(result.steady_confidence[own].mean()),
        start_confidence=float(result.start_confidence[own].mean()),
        best_confidence=float(result.confidence[own].max()),
        best_start_confidence=float(result.start_confidence[result.labels == label].max()),
        attack_accuracy=judged.class_accuracy(made, label),
    )


def _pictures(
    named: NamedClassAttack, result: ClassResult, made: Made, judged: ClassScores, wanted: list[int]
) -> dict[str, Tensor]:
    nearest = Labelled(images=judged.nearest(made.answer), labels=made.answer.labels)
    starts = Labelled(images=result.starts[result.selected], labels=made.answer.labels)
    found: dict[str, Any] = {"": made.answer, "/starts": starts, "/nearest": nearest, "/chance": made.chance}
    return {f"classes/{named.label}{kind}": _rows(one, wanted) for kind, one in found.items()}


def _rows(one: Labelled, wanted: list[int]) -> Tensor:
    """Return ``(k, n, c, h, w)`` uint8: the first images of every class, equally many."""
    rows = [one.images[one.labels == label][:SHOWN] for label in wanted]
    few = min(len(row) for row in rows)
    return as_bytes(torch.stack([row[:few] for row in rows]))
