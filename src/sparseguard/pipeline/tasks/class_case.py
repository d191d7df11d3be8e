"""Attacks, scores and checks of one class inversion case."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from sparseguard.checks import Evidence, find_flags
from sparseguard.core.errors import DataError
from sparseguard.core.seeding import derive
from sparseguard.metrics import subset
from sparseguard.metrics.model_inversion import outlier_fraction, relative_diversity
from sparseguard.pipeline.plan.cases import PlannedCase
from sparseguard.pipeline.plan.classes import select_classes
from sparseguard.pipeline.recipe.entries import NamedClassAttack, Threat
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.scoring.class_images import AttackImages, LabeledImages
from sparseguard.pipeline.scoring.classes import ClassScores
from sparseguard.pipeline.scoring.images import to_bytes
from sparseguard.pipeline.tasks.attack_classes import run_class_attack
from sparseguard.pipeline.tasks.context import ReleasedTarget
from sparseguard.pipeline.tasks.observe import TapObserver
from sparseguard.pipeline.tasks.recipe_config import hyperparameters
from sparseguard.pipeline.tasks.record import (
    RunContext,
    describe_evaluators,
    describe_provenance,
    make_flags,
    make_record,
)
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
    """Refuse a class inversion of classes with too few images to compare with.

    Raises:
        DataError: naming the class and the split.
    """
    for name in select_classes(recipe, threat, splits.private.classes):
        label = splits.private.classes.index(name)
        for split, images in (("private", splits.private), ("test", splits.test)):
            count = int((images.labels == label).sum())
            if count < recipe.scoring.neighbors:
                raise DataError(
                    f"[[threats]] '{threat.name}': class '{name}' has {count} images in {split}, scores need at least "
                    f"{recipe.scoring.neighbors}. Attack other classes, or use more images."
                )


def run_class_case(context: RunContext, job: PlannedCase, subject: ReleasedTarget) -> tuple[Record, dict[str, Tensor]]:
    """Return a case's record and the pictures beside it.

    Raises:
        TrainingError: when an attack ended in values that mean nothing.
    """
    target, splits = subject.target, context.splits
    facts = describe_target(subject, splits, job, context.device)
    observed = TapObserver(target, subject.model, job, splits, context.device)
    names = splits.private.classes
    attacked = [names.index(name) for name in select_classes(context.recipe, job.threat, names)]
    goal = TargetClasses(
        indices=tuple(attacked), names=names, shape=splits.private.shape, flips_keep_class=splits.flips_keep_class
    )
    scorer = ClassScores(
        splits,
        attacked,
        context.scorers.evaluators,
        context.scorers.network,
        context.scorers.feature_cache,
        context.recipe.scoring.neighbors,
    )
    described: list[ClassInversionAttack] = []
    pictures = {"classes/private": _stack_classes(scorer.private, attacked)}
    seconds = {"prepare": subject.facts.prepare_seconds, "fit": subject.facts.seconds}
    for attack in context.recipe.class_attacks:
        prior = context.priors.get(attack)
        result, run_facts = run_class_attack(
            attack,
            goal,
            job=job,
            observed=observed,
            prior=prior,
            store=context.store,
            device=context.device,
            progress=context.progress,
        )
        images = collect_images(context, attack, goal, result)
        described.append(_describe_attack(context, attack, result, images, scorer, goal))
        pictures |= _pictures(attack, result, images, scorer, attacked)
        seconds[f"attack {attack.label}"] = run_facts["seconds"]
    facts = facts.model_copy(update={"state_hash_after": state_hash(target.model)})
    probe = splits.auxiliary.batch(torch.arange(min(64, len(splits.auxiliary)))).to(context.device)
    with torch.no_grad():
        inactive = job.defense.component.find_inactivity(target.model, probe)
    evidence = Evidence(
        target=facts,
        features=observed.describe(0, set()),
        attacks=[],
        chosen=[],
        comparisons=[],
        randomizes=job.defense.component.randomizes,
        inactive=inactive,
        duplicates=context.duplicates,
        class_attacks=described,
        evaluators=describe_evaluators(scorer.evaluators, scorer.preferred_fractions),
    )
    names_of_scores = dict.fromkeys(name for attack in described for name in attack.scores)
    outcome = ClassInversionOutcome(
        kind="class-inversion",
        metrics={name: scorer.describe(name) for name in names_of_scores},
        classes=[names[label] for label in attacked],
        pool=scorer.pool,
        pairing=f"nearest private image of the class in the features of evaluator {scorer.evaluators[0].name}",
        attacks=described,
    )
    record = make_record(
        context,
        job,
        status="ok",
        target=facts,
        features=evidence.features,
        outcome=outcome,
        evaluators=dict(evidence.evaluators),
        flags=make_flags(context.recipe, job, find_flags(evidence)),
        provenance=describe_provenance(context, seconds),
    )
    return record, pictures


def collect_images(
    context: RunContext, attack: NamedClassAttack, goal: TargetClasses, result: ClassResult
) -> AttackImages:
    """Return the images of an attack, and as many without an attack."""
    chosen = result.selected
    labels = result.labels[chosen]
    surest = torch.cat([_most_confident(result, label, int((labels == label).sum())) for label in goal.indices])
    seed = derive(purpose="chance", attack=attack.name)
    unattacked = attack.component.sample_prior(len(labels), goal, context.priors.get(attack), seed)
    return AttackImages(
        answer=LabeledImages(images=result.images[chosen], labels=labels),
        starts=LabeledImages(images=result.starts[surest], labels=result.labels[surest]),
        optimized=LabeledImages(images=result.images, labels=result.labels),
        chance=LabeledImages(images=result.starts[chosen] if unattacked is None else unattacked, labels=labels),
    )


def _most_confident(result: ClassResult, label: int, count: int) -> Tensor:
    """Return the indices of the starts of a class with the highest confidence of the target."""
    own = (result.labels == label).nonzero().squeeze(1)
    return own[result.start_confidence[own].argsort(descending=True, stable=True)[:count]]


def _describe_attack(
    context: RunContext,
    attack: NamedClassAttack,
    result: ClassResult,
    images: AttackImages,
    scorer: ClassScores,
    goal: TargetClasses,
) -> ClassInversionAttack:
    prior = context.priors.describe(attack)
    if prior is not None:
        prior_classes = prior.classes or []
        known = [goal.names[label] for label in goal.indices if goal.names[label] in prior_classes]
        prior = prior.model_copy(update={"known_classes": known})
    figures = {**result.diagnostics, **_answer_figures(context, images, scorer, prior)}
    return ClassInversionAttack(
        name=attack.label,
        attack=attack.name,
        hyperparameters=hyperparameters(attack),
        knowledge=attack.knowledge.value,
        control=attack.component.control,
        prior=prior,
        classes={goal.names[label]: _describe_class(result, images, scorer, label) for label in goal.indices},
        scores=scorer.scores(images),
        agreement=scorer.agreement(images),
        diagnostics=ClassInversionDiagnostics.model_validate(
            figure_fields(figures, ClassInversionDiagnostics.model_fields)
        ),
        loss_curves={name: list(curve) for name, curve in result.curves.items()},
    )


def _answer_figures(
    context: RunContext, images: AttackImages, scorer: ClassScores, prior: PriorFacts | None
) -> dict[str, float]:
    """Return the diversity of the answer and the fractions of prior samples far from real images."""
    private, diagnostics = scorer.private, {}
    with suppress(ValueError):  # no class has two images
        diagnostics["diversity"] = relative_diversity(
            images.answer.images, images.answer.labels, private.images, private.labels
        )
    if prior is not None:
        evaluator = scorer.evaluators[0]
        for name, real in (("private", context.splits.private), ("auxiliary", context.splits.auxiliary)):
            features = evaluator.features(real.batch(subset(len(real))))
            diagnostics[f"samples_far_from_{name}"] = outlier_fraction(images.chance.features(evaluator), features)
    return diagnostics


def _describe_class(result: ClassResult, images: AttackImages, scorer: ClassScores, label: int) -> AttackedClass:
    own = (result.labels == label) & result.selected
    return AttackedClass(
        confidence=float(result.confidence[own].mean()),
        augmented_confidence=float(result.steady_confidence[own].mean()),
        start_confidence=float(result.start_confidence[own].mean()),
        best_confidence=float(result.confidence[own].max()),
        best_start_confidence=float(result.start_confidence[result.labels == label].max()),
        attack_accuracy=scorer.class_accuracy(images, label),
    )


def _pictures(
    attack: NamedClassAttack, result: ClassResult, images: AttackImages, scorer: ClassScores, attacked: list[int]
) -> dict[str, Tensor]:
    nearest = LabeledImages(images=scorer.nearest(images.answer), labels=images.answer.labels)
    starts = LabeledImages(images=result.starts[result.selected], labels=images.answer.labels)
    sources: dict[str, Any] = {"": images.answer, "/starts": starts, "/nearest": nearest, "/chance": images.chance}
    return {f"classes/{attack.label}{kind}": _stack_classes(images, attacked) for kind, images in sources.items()}


def _stack_classes(images: LabeledImages, attacked: list[int]) -> Tensor:
    """Return ``(k, n, c, h, w)`` uint8: the first images of every class, equally many."""
    rows = [images.images[images.labels == label][:SHOWN] for label in attacked]
    probe = min(len(row) for row in rows)
    return to_bytes(torch.stack([row[:probe] for row in rows]))
