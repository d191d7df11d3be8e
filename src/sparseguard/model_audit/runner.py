"""Audit of a user's own model: how much of its training images an attacker gets back at its taps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseguard.core.device import parse_device
from sparseguard.core.errors import TrainingError
from sparseguard.core.progress import Progress, Silent
from sparseguard.model_audit.accept_images import ImageSource, require_labels, share_classes, to_image_set
from sparseguard.model_audit.audited_model import build_recipe, build_threats
from sparseguard.model_audit.hooked_model import LOGITS, HookedModel, check_taps, copy_frozen, count_calls
from sparseguard.model_audit.validate_inputs import adapt_precision, check_logits, split_images
from sparseguard.pipeline.plan.cases import PlannedCase, plan_cases
from sparseguard.pipeline.scoring.scorers import build_scorers
from sparseguard.pipeline.store import Store, TrainingFacts
from sparseguard.pipeline.tasks.case import run_case
from sparseguard.pipeline.tasks.context import ReleasedTarget
from sparseguard.pipeline.tasks.priors import Priors
from sparseguard.pipeline.tasks.query_cache import cache_outputs
from sparseguard.pipeline.tasks.record import RunContext, describe_case, describe_failure
from sparseguard.record import Record
from sparseguard.targets import Target

DEFAULT_ATTACKS: list[dict[str, Any]] = [
    {"name": "mean-image"},
    {"name": "class-mean"},
    {"name": "nearest-neighbor"},
    {"name": "ridge", "copies": 3, "mixes": 1},
    {"name": "local-ridge", "copies": 2},
    {"name": "ridge-conv", "copies": 2, "epochs": 8},
    {"name": "gradient-inversion", "conditions": {"max_images": 32}},
    {
        "name": "ridge",
        "copies": 3,
        "mixes": 1,
        "label": "ridge, shuffled features",
        "conditions": {"control": "shuffled-features"},
    },
]
"""Attacks of an audit, by default."""

PROBES = 16
"""Images that a model runs on before the attacks."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Result of an audit.

    Args:
        records: one a tap, as `sparseguard report` reads them.
        folder: of the records.
    """

    records: list[Record]
    folder: Path


def audit(
    model: nn.Module,
    private: ImageSource,
    held_out: ImageSource,
    *,
    taps: Sequence[str],
    out: Path | str = "runs/audit",
    name: str = "your model",
    flips_keep_class: bool = False,
    attacks: Sequence[Mapping[str, Any]] = tuple(DEFAULT_ATTACKS),
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Attack a model at each tap and record how much of the private images comes back.

    The model is copied; its weights, buffers and modes stay unchanged. The attacker has 60 % of the held-out images and
    chooses among attacks with 10 %; accuracy is measured on 25 %, and 5 % stay unused.

    Args:
        model: from images ``(n, c, h, w)`` in [0, 1] to logits ``(n, classes)``, its normalization inside, e.g. by
            `Preprocessed`. If it does not take float32, images are converted to the precision of its weights.
        private: the images it was trained on, or some of them: an `ImageSet`, a `Dataset`, a `DataLoader`, a Hugging
            Face data set, a pair of arrays or tensors (images, labels), or a folder with one folder a class.
        held_out: images of the same kind it was not trained on, in any of these forms.
        taps: names of modules whose output the attacker sees, as in ``model.named_modules()``, or ``logits``.
        out: folder of the records; the same call resumes there and repeats attacks that failed.
        name: of the model in tables.
        flips_keep_class: whether a mirrored image has the same class.
        attacks: entries as in a recipe.
        device: ``auto``, ``cpu``, ``cuda`` ...
        seed: of the attacks.
        progress: reports the progress.

    Raises:
        RecipeError: for an unknown tap or attack.
        DataError: when images do not fit the model or each other.
        StoreError: when the folder cannot be used.

    Example:
        >>> from tempfile import mkdtemp
        >>> import torch
        >>> from torch import nn
        >>> import sparseguard as sg
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> images, labels = torch.rand(120, 1, 8, 8), torch.arange(120) % 2
        >>> private, held_out = (images[:40], labels[:40]), (images[40:], labels[40:])
        >>> quick = [{"name": "mean-image"}, {"name": "ridge"}]
        >>> result = sg.audit(model, private, held_out, taps=["1"], attacks=quick, out=mkdtemp())
        >>> sg.verdict(result.records[0]).severity in ("severe", "partial", "faint", "none found")
        True
    """
    reporter, target_device = progress or Silent(), parse_device(device)
    images = to_image_set(private, "private"), to_image_set(held_out, "held-out")
    for name_of_images, image_set in zip(("private", "held-out"), images, strict=True):
        require_labels(image_set, name_of_images)
    splits = split_images(*share_classes(*images), flips_keep_class)
    probes = splits.auxiliary.batch(torch.arange(min(PROBES, len(splits.auxiliary)))).to(target_device)
    frozen = adapt_precision(copy_frozen(model).to(target_device), probes)
    check_logits(frozen, probes, splits.private.classes)
    shapes = check_taps(frozen, taps, probes)
    for tap in shapes.keys() - {LOGITS}:
        if (calls := count_calls(frozen, tap, probes)) > 1:
            reporter.say(f"the model runs the tap '{tap}' {calls} times for an image; its first output is audited.")
    recipe = build_recipe(name, attacks, splits.private, seed, build_threats(name, frozen, shapes, probes))
    store = Store(Path(out))
    records: list[Record] = []
    with store.locked():
        priors = Priors(splits=splits)
        for attack in recipe.attacks:
            priors.get(attack)
        this = RunContext(
            recipe=recipe, splits=splits, store=store, device=target_device, progress=reporter, priors=priors,
            scorers=build_scorers(recipe.scoring, splits, store.folder, target_device, reporter),
        )  # fmt: skip
        grid = plan_cases(recipe, splits)
        store.archive_others({describe_case(recipe, job).slug for job in grid})
        records.extend(_record(this, job, HookedModel(frozen, tap := job.threat.tap, shapes[tap])) for job in grid)
    return Audit(records=records, folder=store.folder)


def _record(this: RunContext, job: PlannedCase, hooked: HookedModel) -> Record:
    slug = describe_case(this.recipe, job).slug
    stored = this.store.load_record(slug)
    if stored is not None and stored.key == job.record_key and stored.status == "ok":
        return stored
    this.progress.say(f"tap {job.threat.tap}")
    stage = next(iter(hooked.stages))
    target = Target(model=hooked, taps={job.threat.tap: stage}, epochs=0, best_epoch=0)
    probes = this.splits.auxiliary.batch(torch.arange(min(PROBES, len(this.splits.auxiliary)))).to(this.device)
    pictures: dict[str, Tensor] = {}
    try:
        asked = cache_outputs(hooked, probes, {stage})
        subject = ReleasedTarget(key=job.target_key, target=target, model=asked, facts=TrainingFacts())
        record, pictures = run_case(this, job, subject)
    except TrainingError as error:
        record = describe_failure(this, job, "attack", error)
    this.store.save_record(record, pictures)
    return record
