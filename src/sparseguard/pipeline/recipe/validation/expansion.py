"""Full form of a recipe: defaults filled in, names made tables, presets and sweeps expanded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from sparseguard.attacks import ATTACKS, CLASS_ATTACKS
from sparseguard.core.errors import RecipeError, nearest
from sparseguard.pipeline.recipe.threats import THREATS
from sparseguard.pipeline.recipe.validation.limits import MAX_ENTRIES, shorten
from sparseguard.targets.backbones.torchvision import expand_short_name

SWEEP = "sweep"
LISTS = ("threats", "defenses", "attacks")


def expand_recipe(table: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return a recipe's plain values in full form.

    What has no full form is left as it is, for validation to refuse; what is refused here is added to ``problems``.
    """
    full = dict(table)
    if "data" in full:
        full["data"] = _expand_name(full["data"])
    full.setdefault("threats", [name for name, threat in THREATS.items() if threat.goal == "feature-inversion"])
    full["threats"] = _expand_list(full["threats"], _expand_threat)
    full.setdefault("attacks", _default_attacks(full["threats"]))
    full["attacks"] = _expand_list(full["attacks"], lambda entry: _expand_preset(entry, problems))
    if isinstance(full.get("defenses"), list):
        full["defenses"] = _expand_sweeps(full["defenses"], problems)
    return full


def expand_sweep(entry: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the entries that an entry with a table ``sweep`` stands for: one for each combination of its values.

    Keys of combined defenses are dotted: ``sca.lambd``. The swept values are added to a label.

    Raises:
        RecipeError: when a sweep is no table of lists, has too many combinations, or a value is given beside it.

    Example:
        >>> expand_sweep({"name": "sca", "sweep": {"lambd": [0.1, 0.5]}}, "[[defenses]]")
        [{'name': 'sca', 'lambd': 0.1}, {'name': 'sca', 'lambd': 0.5}]
    """
    if SWEEP not in entry:
        return [dict(entry)]
    sweep, where = entry[SWEEP], f"{where} '{_name(entry)}'"
    if not isinstance(sweep, dict) or not sweep or not all(isinstance(v, list) and v for v in sweep.values()):
        raise RecipeError(f"{where}: sweep must be a table of lists, got {shorten(sweep)}.")
    count = math.prod(len(values) for values in sweep.values())
    if count > MAX_ENTRIES:
        raise RecipeError(f"{where}: sweep has {shorten(count)} combinations, more than {MAX_ENTRIES:,}.")
    return [
        _assign(entry, dict(zip(sweep, values, strict=True)), where) for values in itertools.product(*sweep.values())
    ]


def _assign(entry: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    assigned = {key: value for key, value in entry.items() if key != SWEEP}
    for key, value in values.items():
        table, _, setting = key.rpartition(".")
        inner = assigned if not table else assigned.get(table, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{where}: '{table}' must be a table, got {shorten(inner)}.")
        if setting in inner:
            raise RecipeError(f"{where}: '{key}' is both given and swept.")
        if table:
            assigned[table] = {**inner, setting: value}
        else:
            assigned[setting] = value
    if isinstance(entry.get("label"), str):
        assigned["label"] = " ".join([entry["label"], *(f"{key}={value}" for key, value in values.items())])
    return assigned


def _expand_sweeps(entries: list[Any], problems: list[str]) -> list[Any]:
    expanded: list[Any] = []
    for entry in map(_expand_name, entries):
        if not isinstance(entry, dict):
            expanded.append(entry)
            continue
        try:
            expanded += expand_sweep(entry, "[[defenses]]")
        except RecipeError as error:
            problems.append(str(error))
            expanded.append({key: value for key, value in entry.items() if key != SWEEP})
        if len(expanded) > MAX_ENTRIES:
            problems.append(f"[[defenses]]: with its sweeps it has more than {MAX_ENTRIES:,} entries.")
            return expanded[:1]
    return expanded


def _expand_threat(entry: Any) -> Any:
    entry = _expand_name(entry)
    name = entry.get("name") if isinstance(entry, dict) else None
    threat = THREATS.get(name) if isinstance(name, str) else None
    if threat is None:
        return entry
    full = {"tap": threat.tap, "backbone": threat.backbone, **entry}
    full["backbone"] = _expand_name(full["backbone"])
    if isinstance(full["backbone"], dict):
        full["backbone"] = expand_short_name(full["backbone"])
    return full


def _default_attacks(threats: Any) -> list[str]:
    names = [entry.get("name") for entry in threats if isinstance(entry, dict)] if isinstance(threats, list) else []
    goals = {THREATS[name].goal for name in names if isinstance(name, str) and name in THREATS}
    return list((CLASS_ATTACKS if goals == {"class-inversion"} else ATTACKS).builtin)


def _expand_preset(entry: Any, problems: list[str]) -> Any:
    entry = _expand_name(entry)
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or name not in CLASS_ATTACKS or entry.get("preset") is None:
        return entry
    presets = CLASS_ATTACKS[name].presets
    preset = entry["preset"]
    rest = {key: value for key, value in entry.items() if key != "preset"}
    if not isinstance(preset, str) or preset not in presets:
        hint = nearest(str(preset)[:100], presets) if presets else "It has no presets."
        problems.append(f"[[attacks]] '{name}': unknown preset {shorten(preset)}. {hint}")
        return rest
    return {**presets[preset], **rest}


def _expand_list(value: Any, expand: Any) -> Any:
    return [expand(entry) for entry in value] if isinstance(value, list) else value


def _expand_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name"))[:100]
