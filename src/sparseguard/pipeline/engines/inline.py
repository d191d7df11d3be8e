"""Running a recipe: every case once, resumable at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from sparseguard.core.atomic_io import write_text
from sparseguard.core.device import parse_device
from sparseguard.core.errors import TrainingError
from sparseguard.core.progress import Progress, Silent
from sparseguard.pipeline.plan.cases import PlannedCase, plan_cases
from sparseguard.pipeline.recipe.entries import NamedAttack, NamedClassAttack
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.scoring.scorers import build_scorers
from sparseguard.pipeline.store import Store
from sparseguard.pipeline.tasks.attack import select_auxiliary
from sparseguard.pipeline.tasks.case import run_case
from sparseguard.pipeline.tasks.class_case import check_pools, run_class_case
from sparseguard.pipeline.tasks.context import ReleasedTarget
from sparseguard.pipeline.tasks.priors import Priors
from sparseguard.pipeline.tasks.query_cache import cache_outputs
from sparseguard.pipeline.tasks.recipe_config import describe_recipe
from sparseguard.pipeline.tasks.record import RunContext, describe_case, describe_failure
from sparseguard.pipeline.tasks.train_target import fit_target
from sparseguard.record import Record, format_json


@dataclass(kw_only=True)
class Outcome:
    """Result of a run.

    Args:
        records: of all cases of the recipe, in the grid's order.
        computed: how many of them this run made; the others were there.
    """

    records: list[Record] = field(default_factory=list)
    computed: int = 0

    @property
    def failed(self) -> list[Record]:
        """The records of failed cases."""
        return [record for record in self.records if record.status == "failed"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Unfit:
    """A target whose training failed; every case that shares it fails."""

    key: str
    error: TrainingError


def run(
    recipe: Recipe,
    out: Path | str,
    *,
    device: str = "auto",
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Run every case of ``recipe`` that is not yet recorded in ``out``.

    Targets, attacks and records are kept under keys of all they depend on, so a second run does nothing again, and a
    run that was killed goes on where it was (training at its last checkpoint).

    Args:
        recipe: from `load_recipe` or `parse_recipe`.
        out: the run folder; made if absent.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
        retry_failed: run cases again whose record says they failed.
        progress: shown to the user; default: nothing.

    Returns:
        All records. A case whose training or attack ended in values that mean nothing has status ``failed``, and the
        others go on.

    Raises:
        RecipeError: when a defense cannot be built on the backbone, or the device does not exist.
        DataError: when the data set cannot be read.
        StoreError: when the folder is in use, not writable, full, or damaged.
    """
    shown = progress or Silent()
    place = parse_device(device)
    splits = recipe.dataset.load()
    folder = Path(out)
    store = Store(folder)
    outcome = Outcome()
    with store.locked():
        for attack in recipe.attacks:
            if attack.conditions.dataset is not None:
                select_auxiliary(splits, attack.conditions)  # what is wrong with it should not be found out at the end
        priors = Priors(splits=splits)
        every: tuple[NamedAttack | NamedClassAttack, ...] = (*recipe.attacks, *recipe.class_attacks)
        for named in every:
            prior = priors.get(named)  # likewise
            if isinstance(named, NamedClassAttack):
                named.component.check(prior)
        for threat in recipe.threats:
            check_pools(recipe, threat, splits)
        scoring = replace(recipe.scoring, evaluators=True) if recipe.class_attacks else recipe.scoring
        scorers = build_scorers(scoring, splits, folder, place, shown)
        context = RunContext(
            recipe=recipe, splits=splits, store=store, device=place, progress=shown, scorers=scorers, priors=priors
        )
        grid = plan_cases(recipe, splits)
        slugs = [describe_case(recipe, job).slug for job in grid]
        context.store.archive_others(set(slugs))
        config = describe_recipe(recipe, splits.private.classes)
        write_text(folder / "recipe.json", format_json(config.model_dump(mode="json")) + "\n")
        subject: ReleasedTarget | _Unfit | None = None
        for number, (job, slug) in enumerate(zip(grid, slugs, strict=True), start=1):
            record = context.store.load_record(slug)
            if record is not None and record.key == job.record_key and not (retry_failed and record.status == "failed"):
                outcome.records.append(record)
                continue
            shown.say(f"case {number}/{len(grid)}: {job.threat.name}, {job.defense.label}, seed {job.seed}")
            if subject is None or subject.key != job.target_key:
                subject = _subject(context, job)
            record, pictures = _attempt(context, job, subject)
            context.store.save_record(record, pictures)
            outcome.records.append(record)
            outcome.computed += 1
    return outcome


def _subject(context: RunContext, job: PlannedCase) -> ReleasedTarget | _Unfit:
    try:
        target, facts, figures = fit_target(
            context.recipe, job, context.splits, context.store, context.device, context.progress
        )
    except TrainingError as error:
        return _Unfit(key=job.target_key, error=error)
    few = context.splits.auxiliary.batch(torch.arange(min(16, len(context.splits.auxiliary))))
    threats = [threat for threat in context.recipe.threats if threat.backbone == job.threat.backbone]
    model = cache_outputs(target.model, few.to(context.device), {target.taps[threat.tap] for threat in threats})
    return ReleasedTarget(
        key=job.target_key,
        target=target,
        model=model,
        facts=facts,
        defense_figures=figures,
    )


def _attempt(
    context: RunContext, job: PlannedCase, subject: ReleasedTarget | _Unfit
) -> tuple[Record, dict[str, torch.Tensor]]:
    if isinstance(subject, _Unfit):
        return describe_failure(context, job, "fit", subject.error), {}
    try:
        if job.threat.goal == "class-inversion":
            return run_class_case(context, job, subject)
        return run_case(context, job, subject)
    except TrainingError as error:
        return describe_failure(context, job, "attack", error), {}
