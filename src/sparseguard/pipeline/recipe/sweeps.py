"""From a recipe's entries to pieces with labels: combined defenses, and settings that are swept."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sparseguard.core.config import describe, parse, parse_named
from sparseguard.core.errors import RecipeError
from sparseguard.defenses import DEFENSES
from sparseguard.defenses.combined import SEPARATOR, Combined, split_name
from sparseguard.pipeline.recipe.entries import Named, NamedDefense

SWEEP = "sweep"


def named(entry: Mapping[str, Any], pieces: Mapping[str, type[Any]], where: str) -> Named:
    """Build the piece an entry names, with the label it has or gets.

    Raises:
        RecipeError: for anything unknown or refused.
    """
    label = entry.get("label")
    name, piece = parse_named({key: value for key, value in entry.items() if key != "label"}, pieces, where)
    if label is None:
        label = " ".join([name, *_changed(piece)])
    if not isinstance(label, str) or not label:
        raise RecipeError(f"{where} '{name}': label must be a string, got {label!r}.")
    return Named(name=name, label=label, piece=piece)


def defense(entry: Mapping[str, Any]) -> NamedDefense:
    """Build a defense, or several whose names are put together by ``+``, with the settings of each under its name.

    Raises:
        RecipeError: for anything unknown or refused, or when they cannot be combined.

    Example:
        >>> both = defense({"name": "sca+gaussian-noise", "sca": {"lambd": 0.1}})
        >>> both.label, both.describe()["gaussian-noise"]["sigma"]
        ('sca+gaussian-noise sca.lambd=0.1', 0.5)
    """
    where = "[[defenses]]"
    name = entry.get("name")
    names = split_name(name, DEFENSES) if isinstance(name, str) else None
    if names is None or len(names) == 1:
        found = named(entry, DEFENSES, where)
        return NamedDefense(name=found.name, label=found.label, piece=found.piece)
    if len(set(names)) < len(names):
        raise RecipeError(f"{where} '{name}': a defense appears twice.")
    for key in entry:
        if key not in ("name", "label", *names):
            raise RecipeError(f"{where} '{name}': unknown key '{key}'. Settings go into {' and '.join(names)}.")
    parts = {}
    for part in names:
        given = entry.get(part, {})
        if not isinstance(given, dict):
            raise RecipeError(f"{where} '{name}': {part} must be a table of its settings, got {given!r}.")
        parts[part] = parse(DEFENSES[part], given, f"{where} '{name}' {part}")
    changed = [f"{part}.{setting}" for part, piece in parts.items() for setting in _changed(piece)]
    label = entry.get("label", " ".join([SEPARATOR.join(names), *changed]))
    if not isinstance(label, str) or not label:
        raise RecipeError(f"{where} '{name}': label must be a string, got {label!r}.")
    return NamedDefense(name=SEPARATOR.join(names), label=label, piece=Combined(parts))


def swept(entry: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the entries that an entry with a table ``sweep`` stands for: one for each combination of its values.

    Keys of combined defenses are dotted: ``sca.lambd``. A label is given the swept values.

    Raises:
        RecipeError: when a sweep is no table of lists, or a value is given beside it.

    Example:
        >>> swept({"name": "sca", "sweep": {"lambd": [0.1, 0.5]}}, "[[defenses]]")
        [{'name': 'sca', 'lambd': 0.1}, {'name': 'sca', 'lambd': 0.5}]
    """
    if SWEEP not in entry:
        return [dict(entry)]
    sweep = entry[SWEEP]
    if not isinstance(sweep, dict) or not sweep or not all(isinstance(v, list) and v for v in sweep.values()):
        raise RecipeError(f"{where} '{entry.get('name')}': sweep must be a table of lists, got {sweep!r}.")
    made = []
    for values in itertools.product(*sweep.values()):
        one = {key: value for key, value in entry.items() if key != SWEEP}
        for key, value in zip(sweep, values, strict=True):
            table, _, last = key.rpartition(".")
            inner = one if not table else dict(one.get(table, {}))
            if last in inner:
                raise RecipeError(f"{where} '{entry.get('name')}': '{key}' is both given and swept.")
            inner[last] = value
            if table:
                one[table] = inner
        if "label" in one:
            one["label"] = " ".join([str(one["label"]), *(f"{k}={v}" for k, v in zip(sweep, values, strict=True))])
        made.append(one)
    return made


def _changed(piece: Any) -> list[str]:
    """Every setting that differs from its default."""
    plain, default = describe(piece), describe(type(piece)())
    return [f"{field.name}={plain[field.name]}" for field in fields(piece) if plain[field.name] != default[field.name]]
