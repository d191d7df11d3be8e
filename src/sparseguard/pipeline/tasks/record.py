"""Parts of a record that do not depend on the kind of attack."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch

from sparseguard.core.errors import TrainingError
from sparseguard.core.progress import Progress
from sparseguard.pipeline.plan.cases import PlannedCase
from sparseguard.pipeline.recipe.entries import NamedDefense
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.scoring.evaluators import Evaluator
from sparseguard.pipeline.scoring.images import count_reidentification_pools, select_gallery
from sparseguard.pipeline.scoring.scorers import Scorers
from sparseguard.pipeline.store import Store
from sparseguard.pipeline.tasks.priors import Priors
from sparseguard.pipeline.tasks.recipe_config import describe_recipe
from sparseguard.pipeline.tasks.threat_descriptions import describe_threat
from sparseguard.record import Case, DataFacts, DataReaders, EvaluatorFacts, Failure, Flag, Provenance, Record
from sparseguard.record.claims import find_claim
from sparseguard.types import Splits

LIBRARIES = ("sparseguard", "torch", "torchmetrics", "numpy", "safetensors", "pydantic")


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContext:
    """Recipe, data and components that all cases of a run share."""

    recipe: Recipe
    splits: Splits
    store: Store
    device: torch.device
    progress: Progress
    scorers: Scorers
    priors: Priors

    @cached_property
    def duplicates(self) -> dict[str, int]:
        """Split to the number of private images it holds too."""
        return count_duplicates(self.splits)


def describe_failure(context: RunContext, job: PlannedCase, stage: str, error: TrainingError) -> Record:
    """Return the record of a failed case."""
    failure = Failure(stage=stage, kind=type(error).__name__, message=str(error))
    return make_record(context, job, status="failed", failure=failure, provenance=describe_provenance(context, {}))


def make_record(context: RunContext, job: PlannedCase, **content: Any) -> Record:
    """Return a case's record: its identity, and ``content``."""
    recipe, splits = context.recipe, context.splits
    defense = job.defense
    data = DataFacts(
        layout=splits.layout,
        sizes={split: len(images) for split, images in splits.by_name().items()},
        fingerprints=splits.fingerprints(),
        duplicates=context.duplicates,
        gallery_indices=select_gallery(len(splits.private)).tolist(),
        reidentification_pools=count_reidentification_pools(splits),
        flips_keep_class=splits.flips_keep_class,
        readers=DataReaders(
            target=["private (a tenth of it for early stopping only)"],
            defense=["auxiliary", "private where it learns from it; see docs/defenses.md"],
            attacks=[
                "auxiliary",
                "auxiliary_val",
                "other sets where their setting names one",
                "private images that their setting says they know, which they do not attack",
            ],
            evaluators=["auxiliary", "auxiliary_val"],
            bounds=["auxiliary", "private"],
            accuracy=["test", "tuning", "auxiliary_val"],
            scores=list(count_reidentification_pools(splits)),
        ),
    )
    shared = {
        "recipe": recipe.name,
        "case": describe_case(recipe, job),
        "key": job.record_key,
        "threat": describe_threat(job.threat),
        "config": describe_recipe(recipe, splits.private.classes),
        "data": data,
        "evaluators": describe_evaluators(context.scorers.evaluators),
        "claim": find_claim(job.threat.name, recipe.dataset.paper_name, defense.name, _scalar_lambda(defense)),
    }
    return Record.model_validate({**shared, **content})


def describe_evaluators(
    evaluators: Iterable[Evaluator], shuffled_patches: Mapping[str, float] | None = None
) -> dict[str, EvaluatorFacts]:
    """Return the evaluators' facts by name.

    Args:
        evaluators: the evaluators.
        shuffled_patches: evaluator to the fraction of images of no class that it assigns to one attacked class.
    """
    fractions = shuffled_patches or {}
    return {
        evaluator.name: EvaluatorFacts(accuracy=evaluator.accuracy, shuffled_patches=fractions.get(evaluator.name))
        for evaluator in evaluators
    }


def count_duplicates(splits: Splits) -> dict[str, int]:
    """Return how many private images are also, pixel by pixel, in each other split; only splits with any."""
    known = {
        split: {hashlib.sha256(image.numpy().tobytes()).digest() for image in images.pixels}
        for split, images in splits.by_name().items()
    }
    shared = {split: len(known["private"] & pixels) for split, pixels in known.items() if split != "private"}
    return {split: count for split, count in shared.items() if count}


def _scalar_lambda(defense: NamedDefense) -> float | None:
    lambd = defense.describe().get("lambd")
    return lambd if isinstance(lambd, float) else None


def describe_case(recipe: Recipe, job: PlannedCase) -> Case:
    """Return the axes of a case."""
    return Case(
        dataset=recipe.data.name,
        backbone=job.threat.backbone.label,
        defense=job.defense.label,
        threat=job.threat.name,
        tap=job.threat.tap,
        seed=job.seed,
    )


def make_flags(recipe: Recipe, job: PlannedCase, messages: dict[str, str]) -> list[Flag]:
    """Return flags from the messages of checks, with the recipe's sentence where it expects one."""
    flags = []
    for name, message in messages.items():
        reasons = [
            expected.reason
            for expected in recipe.expected_flags
            if expected.flag == name
            and expected.defense in (None, job.defense.label)
            and expected.threat in (None, job.threat.name)
        ]
        flags.append(Flag(name=name, message=message, expected=reasons[0] if reasons else None))
    return flags


def describe_provenance(
    context: RunContext, seconds: Mapping[str, float], first_sparse_layer: str | None = None
) -> Provenance:
    """Return times, host and versions."""
    return Provenance(
        finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds={stage: round(value, 2) for stage, value in seconds.items()},
        device=str(context.device),
        platform=platform.platform(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        versions={library: version(library) for library in LIBRARIES},
        first_sparse_layer=first_sparse_layer,
    )
