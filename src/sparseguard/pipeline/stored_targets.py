"""Trained targets of a run folder, rebuilt from its records and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparseguard.core.checkpoint import load_weights
from sparseguard.core.errors import StoreError
from sparseguard.core.staged_model import Shape, StagedModel
from sparseguard.pipeline.plan.cases import PlannedCase
from sparseguard.pipeline.plan.keys import compute_target_key
from sparseguard.pipeline.recipe.loading import parse_recipe
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.store import Store
from sparseguard.pipeline.tasks.train_target import build_target
from sparseguard.record import Case, LabeledComponent, Record, read_pictures, read_records


def load_target(
    folder: Path | str,
    *,
    defense: str,
    threat: str,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> StagedModel:
    """Return a trained target of a run, its defense active, in evaluation mode.

    Args:
        folder: the run folder.
        defense: label of the defense, as in the records.
        threat: name of the threat.
        seed: of the case.
        device: to put it on.

    Returns:
        A module from images ``(n, c, h, w)`` in [0, 1] to logits; its ``stages`` are modules by name, and
        ``forward_to(images, stage)`` returns the features of a stage.

    Raises:
        StoreError: when the folder has no such case (the message lists its cases) or not the target's weights, or was
            written by an audit, whose target is the user's own model.
    """
    folder = Path(folder)
    record = _find_record(folder, defense, threat, seed)
    if record.config.training is None or record.data.layout == "audit":
        raise StoreError(f"{folder}: holds an audit; its target is the model that was audited, which is not stored.")
    recipe = parse_recipe(_recipe_table(record))
    threat_entry, defense_entry = recipe.threats[0], recipe.defenses[0]
    key = compute_target_key(recipe, record.data.fingerprints, threat_entry, defense_entry, seed)
    store = Store(folder)
    stored = store.load_target(key)
    if stored is None:
        raise StoreError(
            f"{folder}: has no weights of '{record.case.slug}' (targets/{key[:12]}...). They were removed, the run has "
            "not trained it, or another version of sparseguard trained it; run its recipe into this folder again."
        )
    weights, state, _ = stored
    shape, classes = _image_shape(folder, record, recipe)
    case = PlannedCase(
        threat=threat_entry,
        defense=defense_entry,
        seed=seed,
        target_key=key,
        attack_keys={},
        bounds_key="",
        record_key="",
    )
    model, _ = build_target(recipe, case, shape, classes, state)
    load_weights(model, weights, folder / "targets" / key / "model.safetensors")
    model.to(device)
    defense_entry.component.release(model)
    return model.eval()


def _find_record(folder: Path, defense: str, threat: str, seed: int) -> Record:
    records = read_records(folder)
    for record in records:
        if (record.case.defense, record.case.threat, record.case.seed) == (defense, threat, seed):
            return record
    cases = "; ".join(_words(record.case) for record in records)
    raise StoreError(f"{folder}: has no case defense={defense!r}, threat={threat!r}, seed={seed}. It has: {cases}.")


def _words(case: Case) -> str:
    return f"defense={case.defense!r}, threat={case.threat!r}, seed={case.seed}"


def _recipe_table(record: Record) -> dict[str, Any]:
    """Return a recipe of the one case."""
    config = record.config
    threat = next(threat for threat in config.threats if threat.name == record.case.threat)
    defense = next(defense for defense in config.defenses if defense.label == record.case.defense)
    return {
        "name": record.recipe,
        "data": {"name": config.data.name, **config.data.hyperparameters},
        "training": config.training.model_dump() if config.training else {},
        "threats": [
            {
                "name": threat.name,
                "tap": threat.tap,
                "backbone": {"name": threat.backbone.name, **threat.backbone.hyperparameters},
            }
        ],
        "defenses": [_entry(defense)],
        "attacks": _attacks(record),
        "seeds": [record.case.seed],
    }


def _attacks(record: Record) -> list[Any]:
    """Return attacks that a recipe may have for the case's threat."""
    if record.threat.goal == "class-inversion":
        return [_entry(attack) for attack in record.config.class_attacks]
    return ["ridge"]


def _entry(component: LabeledComponent) -> dict[str, Any]:
    return {"label": component.label, "name": component.name, **component.hyperparameters}


def _image_shape(folder: Path, record: Record, recipe: Recipe) -> tuple[Shape, int]:
    """Return the shape of an image and the number of classes, from the pictures or else from the data set."""
    names = recipe.dataset.classes
    pictures = folder / "records" / f"{record.case.slug}.safetensors"
    if names and pictures.exists():
        stored = read_pictures(pictures)
        images = [*(stored.gallery[name] for name in ("original",) if name in stored.gallery)]
        images += [stored.classes[name] for name in ("private",) if name in stored.classes]
        if images:
            return tuple(images[0].shape[-3:]), len(names)
    private = recipe.dataset.load().private
    return private.shape, len(private.classes)
