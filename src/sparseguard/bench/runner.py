"""Running a recipe: every case once, resumable at any moment."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sparseguard.bench.keys import Job, jobs
from sparseguard.bench.memo import remembering
from sparseguard.bench.recipe import Named, Recipe
from sparseguard.bench.score import as_bytes, choose, gallery_index, identification_sizes, score, summarize
from sparseguard.bench.stages import Observed, describe_target, fit_target
from sparseguard.bench.store import Store, StoredAttack
from sparseguard.checks import Evidence, raised
from sparseguard.claims import find_claim
from sparseguard.errors import RecipeError, TrainingError
from sparseguard.files import write_text
from sparseguard.progress import Progress, Silent
from sparseguard.record import Attacker, Case, Failure, Flag, Record
from sparseguard.settings import describe
from sparseguard.targets import Target, state_hash
from sparseguard.types import Released, Splits

LIBRARIES = ("sparseguard", "torch", "torchmetrics", "numpy", "safetensors", "pydantic")


@dataclass(kw_only=True)
class Outcome:
    """What a run did.

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
class _Run:
    """What every case of a run shares."""

    recipe: Recipe
    splits: Splits
    store: Store
    device: torch.device
    progress: Progress


@dataclass(frozen=True, kw_only=True, eq=False)
class _Subject:
    """A released target, what it is asked through, how long it trained, and whether on codes computed once."""

    key: str
    target: Target
    model: Released
    seconds: float
    codes: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Unfit:
    """A target whose training failed; every case that shares it fails."""

    key: str
    error: TrainingError


def run(
    recipe: Recipe,
    out: Path,
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
    place = _device(device)
    splits = recipe.dataset.load()
    this = _Run(recipe=recipe, splits=splits, store=Store(out), device=place, progress=shown)
    outcome = Outcome()
    with this.store.locked():
        grid = jobs(recipe, splits)
        slugs = [_case(recipe, job).slug for job in grid]
        this.store.set_aside_all_but(set(slugs))
        write_text(out / "recipe.json", json.dumps(_config(recipe), indent=1) + "\n")
        subject: _Subject | _Unfit | None = None
        for number, (job, slug) in enumerate(zip(grid, slugs, strict=True), start=1):
            record = this.store.load_record(slug)
            if record is not None and record.key == job.record_key and not (retry_failed and record.status == "failed"):
                outcome.records.append(record)
                continue
            shown.say(f"case {number}/{len(grid)}: {job.threat.name}, {job.defense.label}, seed {job.seed}")
            if subject is None or subject.key != job.target_key:
                subject = _subject(this, job)
            record, pictures = _attempt(this, job, subject)
            this.store.save_record(record, pictures)
            outcome.records.append(record)
            outcome.computed += 1
    return outcome


def _subject(this: _Run, job: Job) -> _Subject | _Unfit:
    try:
        target, facts = fit_target(this.recipe, job, this.splits, this.store, this.device, this.progress)
    except TrainingError as error:
        return _Unfit(key=job.target_key, error=error)
    few = this.splits.attacker_train.batch(torch.arange(min(16, len(this.splits.attacker_train))))
    threats = [threat for threat in this.recipe.threats if threat.backbone == job.threat.backbone]
    model = remembering(target.model, few.to(this.device), {target.taps[threat.tap] for threat in threats})
    return _Subject(key=job.target_key, target=target, model=model, seconds=facts["seconds"], codes=facts["codes"])


def _attempt(this: _Run, job: Job, subject: _Subject | _Unfit) -> tuple[Record, dict[str, torch.Tensor]]:
    if isinstance(subject, _Unfit):
        return _failed(this, job, "fit", subject.error), {}
    try:
        return _attack(this, job, subject)
    except TrainingError as error:
        return _failed(this, job, "attack", error), {}


def _attack(this: _Run, job: Job, subject: _Subject) -> tuple[Record, dict[str, torch.Tensor]]:
    target = subject.target
    facts = describe_target(target, this.splits, job, this.device)
    observed = Observed(target, subject.model, job, this.splits, this.device)
    attackers: list[Attacker] = []
    pictures: dict[str, torch.Tensor] = {}
    index = gallery_index(len(this.splits.private))
    pictures["gallery/original"] = as_bytes(this.splits.private.batch(index))
    seconds, public_queries = {"fit": subject.seconds}, 0
    with this.progress.task(
        f"{job.threat.name}: {job.defense.label}: attack, score", 2 * len(this.recipe.attacks)
    ) as go:
        for named in this.recipe.attacks:
            stored = this.store.load_attack(job.attack_keys[named.label])
            stored = stored or observed.attack(named, this.progress, this.store)
            go(1)
            scores = score(stored.reconstructions, this.splits)
            attackers.append(_attacker(named, stored, scores))
            pictures[f"gallery/{named.label}"] = as_bytes(stored.reconstructions["private"][index])
            for part, metrics in scores.items():
                pictures |= {f"scores/{named.label}/{part}/{metric}": values for metric, values in metrics.items()}
            seconds[f"attack {named.label}"] = stored.facts["seconds"]
            public_queries = max(public_queries, stored.facts["public_queries"])
            go(1)
    facts = facts.model_copy(update={"state_hash_after": state_hash(target.model)})
    few = this.splits.attacker_train.batch(torch.arange(min(64, len(this.splits.attacker_train)))).to(this.device)
    with torch.no_grad():
        inactive = job.defense.piece.inactive(target.model, few)
    evidence = Evidence(
        target=facts,
        leaked=observed.describe(public_queries),
        attackers=attackers,
        chosen=choose(attackers),
        randomizes=job.defense.piece.randomizes,
        inactive=inactive,
    )
    record = _record(
        this,
        job,
        status="ok",
        target=facts,
        leaked=evidence.leaked,
        attackers=attackers,
        chosen=evidence.chosen,
        flags=_flags(this.recipe, job, raised(evidence)),
        provenance=_provenance(this, seconds) | ({"first_sparse_layer": subject.codes} if subject.codes else {}),
    )
    return record, pictures


def _attacker(named: Named, stored: StoredAttack, scores: dict[str, dict[str, torch.Tensor]]) -> Attacker:
    facts = stored.facts
    return Attacker(
        name=named.label,
        settings=named.described(),
        knowledge=named.piece.knowledge.value,
        floor=named.piece.floor,
        parameter_change=facts["parameter_change"],
        outside_range=facts["outside_range"],
        notes=facts["notes"],
        scores={
            part: {metric: summarize(values) for metric, values in metrics.items()} for part, metrics in scores.items()
        },
    )


def _failed(this: _Run, job: Job, stage: str, error: TrainingError) -> Record:
    failure = Failure(stage=stage, kind=type(error).__name__, message=str(error))
    return _record(this, job, status="failed", failure=failure, provenance=_provenance(this, {}))


def _record(this: _Run, job: Job, **content: Any) -> Record:
    recipe, splits = this.recipe, this.splits
    defense = job.defense
    data = {
        "layout": splits.layout,
        "sizes": {part: len(images) for part, images in splits.parts().items()},
        "fingerprints": splits.fingerprints(),
        "gallery_index": gallery_index(len(splits.private)).tolist(),
        "flips_keep_class": splits.flips_keep_class,
        "read_by": {
            "target": ["private (a tenth of it for early stopping only)"],
            "defense": ["attacker_train"],
            "attacks": ["attacker_train", "attacker_val"],
            "accuracy": ["test"],
            "scores": list(identification_sizes(splits)),
        },
    }
    config = {**_config(recipe), "case_threat": job.threat.name, "case_defense": defense.described()}
    return Record(
        recipe=recipe.name,
        case=_case(recipe, job),
        key=job.record_key,
        config=config,
        data=data,
        identification=identification_sizes(splits),
        claim=find_claim(job.threat.name, recipe.dataset.paper_name, defense.name, _one_lambda(defense)),
        **content,
    )


def _one_lambda(defense: Named) -> float | None:
    lambd = describe(defense.piece).get("lambd")
    return lambd if isinstance(lambd, float) else None


def _case(recipe: Recipe, job: Job) -> Case:
    return Case(
        dataset=recipe.data.name,
        backbone=job.threat.backbone.label,
        defense=job.defense.label,
        threat=job.threat.name,
        tap=job.threat.tap,
        seed=job.seed,
    )


def _config(recipe: Recipe) -> dict[str, Any]:
    """Return the resolved recipe as plain values."""
    return {
        "name": recipe.name,
        "description": recipe.description,
        "seeds": list(recipe.seeds),
        "data": recipe.data.described(),
        "fit": describe(recipe.fit),
        "threats": [
            {"name": threat.name, "tap": threat.tap, "backbone": threat.backbone.described()}
            for threat in recipe.threats
        ],
        "defenses": [{"label": defense.label, **defense.described()} for defense in recipe.defenses],
        "defense_order": [defense.label for defense in recipe.defenses],
        "attacks": [{"label": attack.label, **attack.described()} for attack in recipe.attacks],
        "expected_flags": [describe(flag) for flag in recipe.expected_flags],
    }


def _flags(recipe: Recipe, job: Job, messages: dict[str, str]) -> list[Flag]:
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


def _provenance(this: _Run, seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "device": str(this.device),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
    }


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RecipeError(f"device '{name}' cannot be used: {error}.") from None
    return place
