"""Auditing a user's own model: how much of the images it was trained on leaks at its taps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.device import device_named
from sparseguard.core.errors import DataError, TrainingError
from sparseguard.core.progress import Progress, Silent
from sparseguard.core.staged_model import Blueprint, Shape, Stage
from sparseguard.data import DataSet
from sparseguard.model_audit.hooked_model import LOGITS, HookedModel, UpTo, check_taps, copied, times_run
from sparseguard.model_audit.validate_inputs import NAME, parted, with_logits
from sparseguard.pipeline.plan.keys import Job, jobs
from sparseguard.pipeline.recipe.entries import Named, Threat
from sparseguard.pipeline.recipe.recipe import Recipe, parse_recipe
from sparseguard.pipeline.scoring.scorers import bench
from sparseguard.pipeline.store import Store
from sparseguard.pipeline.tasks.case import measured
from sparseguard.pipeline.tasks.context import Subject
from sparseguard.pipeline.tasks.priors import Priors
from sparseguard.pipeline.tasks.query_cache import remembering
from sparseguard.pipeline.tasks.record import Run, case_of, failed
from sparseguard.record import Record
from sparseguard.targets import Backbone, Target, state_hash
from sparseguard.types import ImageSet, Splits

ATTACKS: list[dict[str, Any]] = [
    {"name": "mean-image"},
    {"name": "class-mean"},
    {"name": "nearest-public"},
    {"name": "ridge", "copies": 3, "mixes": 1},
    {"name": "local-ridge", "copies": 2},
    {"name": "ridge-conv", "copies": 2, "epochs": 8},
    {"name": "gradient-inversion", "setting": {"images": 32}},
    {
        "name": "ridge",
        "copies": 3,
        "mixes": 1,
        "label": "ridge, shuffled features",
        "setting": {"control": "shuffled-features"},
    },
]
"""What a model is attacked with, unless told otherwise."""

FEW = 16
"""Images that a model is tried on before it is attacked."""


@final
@settings
class GivenImages(DataSet):
    """Images that were handed over."""

    name: ClassVar[str] = NAME
    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "images handed to an audit"
    paper_name: ClassVar[str | None] = None
    classes: ClassVar[tuple[str, ...]] = ()
    flips_keep_class: ClassVar[bool] = False
    private_fingerprint: str = ""

    def _read(self) -> Splits:
        raise DataError("these images were handed over in memory; they cannot be read again.")


@final
@settings
class GivenModel(Backbone):
    """A model that was handed over, known by the hash of its state and by what it answers."""

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "a model handed to an audit"
    state: str = ""
    tap: str = ""
    answers: str = ""

    def blueprint(self, classes: int) -> Blueprint:  # noqa: ARG002
        """Return the one stage that leaks; it is there already, and not built."""
        return Blueprint(stages=(Stage(self.tap, _never),), taps={self.tap: self.tap})


def _never(shape: Shape) -> nn.Module:
    raise TrainingError(f"a model that was handed over is not built anew for inputs of {shape}.")


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    Args:
        records: one a tap, as `sparseguard report` reads them.
        folder: where they are.
    """

    records: list[Record]
    folder: Path


def audit(
    model: nn.Module,
    private: ImageSet,
    held_out: ImageSet,
    *,
    taps: Sequence[str],
    out: Path | str,
    name: str = "your model",
    flips_keep_class: bool = False,
    attacks: Sequence[Mapping[str, Any]] = tuple(ATTACKS),
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Attack a model at each tap and record what comes back.

    The model is copied; neither its weights, its buffers nor its modes are touched. The held-out images are parted:
    60 % and 10 % are what the attacker has and chooses with, 5 % and 25 % are images nobody has seen.

    Args:
        model: from images ``(n, c, h, w)`` in [0, 1] to logits ``(n, classes)``; put its normalization inside, e.g. by
            `Preprocessed`. Where its weights are not float32, it is given images in their precision.
        private: the images it was trained on, or some of them.
        held_out: images of the same kind it was not trained on.
        taps: names of modules whose output leaks, as in ``model.named_modules()``, or ``logits``.
        out: folder for records and finished attacks; the same call goes on there, and tries again what failed.
        name: what tables call the model.
        flips_keep_class: whether mirror images are of the same class.
        attacks: entries as in a recipe.
        device: ``auto``, ``cpu``, ``cuda`` ...
        seed: of the attacks.
        progress: told how far it is.

    Raises:
        RecipeError: for a tap or an attack that is not known.
        DataError: when images do not fit the model or each other.
        StoreError: when the folder cannot be used.
    """
    shown, place = progress or Silent(), device_named(device)
    splits = parted(private, held_out, flips_keep_class)
    few = splits.auxiliary.batch(torch.arange(min(FEW, len(splits.auxiliary)))).to(place)
    frozen = with_logits(copied(model).to(place), splits, few)
    shapes = check_taps(frozen, taps, few)
    for tap in shapes.keys() - {LOGITS}:
        if (times := times_run(frozen, tap, few)) > 1:
            shown.say(f"the tap '{tap}' is run {times} times for an image; what it puts out first is audited.")
    recipe = _recipe(name, attacks, private, seed, _threats(name, frozen, shapes, few))
    store = Store(Path(out))
    records: list[Record] = []
    with store.locked():
        priors = Priors(splits=splits)
        for attack in recipe.attacks:
            priors.of(attack)
        this = Run(
            recipe=recipe, splits=splits, store=store, device=place, progress=shown, priors=priors,
            bench=bench(recipe.judge, splits, store.folder, place, shown),
        )  # fmt: skip
        grid = jobs(recipe, splits)
        store.set_aside_all_but({case_of(recipe, job).slug for job in grid})
        records.extend(_record(this, job, HookedModel(frozen, tap := job.threat.tap, shapes[tap])) for job in grid)
    return Audit(records=records, folder=store.folder)


def _record(this: Run, job: Job, hooked: HookedModel) -> Record:
    slug = case_of(this.recipe, job).slug
    there = this.store.load_record(slug)
    if there is not None and there.key == job.record_key and there.status == "ok":
        return there
    this.progress.say(f"tap {job.threat.tap}")
    stage = next(iter(hooked.stages))
    target = Target(model=hooked, taps={job.threat.tap: stage}, epochs=0, best_epoch=0)
    few = this.splits.auxiliary.batch(torch.arange(min(FEW, len(this.splits.auxiliary)))).to(this.device)
    facts: dict[str, Any] = {
        "history": [], "step_flops": None, "plain_flops": None, "defense": {}, "codes": None,
        "prepare_seconds": 0.0, "seconds": 0.0,
    }  # fmt: skip
    pictures: dict[str, Tensor] = {}
    try:
        asked = remembering(hooked, few, {stage})
        subject = Subject(key=job.target_key, target=target, model=asked, facts=facts)
        record, pictures = measured(this, job, subject)
    except TrainingError as error:
        record = failed(this, job, "attack", error)
    this.store.save_record(record, pictures)
    return record


def _recipe(
    name: str, attacks: Sequence[Mapping[str, Any]], private: ImageSet, seed: int, threats: tuple[Threat, ...]
) -> Recipe:
    recipe = parse_recipe(
        {
            "name": f"audit of {name}",
            "data": {"name": "fashion-mini"},
            "defenses": [{"name": "none", "label": name}],
            "threats": ["split"],
            "attacks": [dict(attack) for attack in attacks],
            "seeds": [seed],
        }
    )
    data = GivenImages(private_fingerprint=private.fingerprint())
    return replace(recipe, threats=threats, data=Named(name=GivenImages.name, label=GivenImages.name, piece=data))


def _threats(name: str, model: nn.Module, taps: Iterable[str], images: Tensor) -> tuple[Threat, ...]:
    state, logits = state_hash(model), _answers(model, images)
    found = []
    for tap in taps:
        answers = logits if tap == LOGITS else f"{_answers(UpTo(model, tap), images)}, then {logits}"
        piece = GivenModel(state=state, tap=tap, answers=answers)
        found.append(Threat(name=tap, tap=tap, backbone=Named(name="given", label=name, piece=piece)))
    return tuple(found)


@torch.no_grad()
def _answers(model: nn.Module, images: Tensor) -> str:
    """Return what tells models of equal weights and other code apart, in as few digits as rounding leaves alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        values = model(images).double().cpu().flatten()
    weights = torch.arange(len(values), dtype=torch.float64).cos()
    return f"size {values.norm():.3g}, cosine {torch.cosine_similarity(values, weights, dim=0):.2f}"
