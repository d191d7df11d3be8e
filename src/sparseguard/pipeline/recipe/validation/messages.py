"""Messages about refused recipes: the place, the value, and the nearest known word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from sparseguard.attacks import ATTACKS, CLASS_ATTACKS
from sparseguard.core.errors import nearest
from sparseguard.data import DATASETS
from sparseguard.defenses import DEFENSES
from sparseguard.defenses.combined import split_name
from sparseguard.pipeline.recipe.conditions import Conditions
from sparseguard.pipeline.recipe.entries import ExpectedFlag
from sparseguard.pipeline.recipe.scoring import Scoring
from sparseguard.pipeline.recipe.threats import THREATS
from sparseguard.pipeline.recipe.validation.limits import shorten
from sparseguard.pipeline.recipe.validation.models import settings_of
from sparseguard.targets import BACKBONES, Fit

MAX_MESSAGES = 20
LISTS = ("threats", "defenses", "attacks", "expected_flags")
_KNOWN_NAMES: Mapping[str, Any] = {"data": (DATASETS,), "defenses": (DEFENSES,), "attacks": (ATTACKS, CLASS_ATTACKS)}


def explain_errors(error: pydantic.ValidationError, table: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Return a sentence for each error of a recipe.

    Args:
        error: raised by the recipe's model.
        table: the plain values that were validated.
        keys: the recipe's known keys.
    """
    messages: dict[tuple[str, ...], str] = {}
    for issue in error.errors(include_url=False):
        path = _find_path(issue, table)
        if issue["type"] == "too_short" and path and path[0] in LISTS and table.get(path[0]):
            continue  # its entries were refused themselves
        if path[:1] == ("seeds",):
            path = path[:1]
        text = _explain(issue, path, table, keys)
        previous = messages.get(path)
        messages[path] = text if previous is None or previous == text else _join(previous, issue["msg"])
    shown = list(messages.values())[:MAX_MESSAGES]
    if len(messages) > MAX_MESSAGES:
        shown.append(f"recipe: {len(messages) - MAX_MESSAGES} more errors.")
    return shown


def _join(previous: str, message: str) -> str:
    """Add the reason of another form that a value may have."""
    head, bracket, tail = previous.partition(" (got ")
    return previous if message in head else f"{head}, or: {message}{bracket}{tail}"


def _find_path(issue: Any, table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return an error's location without the tags of unions, which are no keys of the recipe."""
    value: Any = table
    path: list[str] = []
    for word in issue["loc"]:
        is_index = isinstance(value, list) and isinstance(word, int) and word < len(value)
        if is_index or (isinstance(value, dict) and word in value):
            value = value[word]
            path.append(str(word))
    if issue["type"] == "missing":
        path.append(str(issue["loc"][-1]))
    return tuple(path)


def _explain(issue: Any, path: tuple[str, ...], table: Mapping[str, Any], keys: Sequence[str]) -> str:
    where, rest = _split_place(path, table)
    kind, value = issue["type"], issue["input"]
    names = _names(path)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: unknown key '{'.'.join(rest)}'. {_hint(path, table, keys)}"
    if kind == "union_tag_not_found" or (kind == "missing" and path == ("data",)):
        return f"{where}: needs a name. Known: {', '.join(sorted(names))}."
    if kind == "union_tag_invalid":
        word = value.get("name") if isinstance(value, dict) else value
        if not isinstance(word, str):
            return f"{where}: name must be a string, got {shorten(word)}."
        where = "[data]" if path[0] == "data" else f"[[{path[0]}]]"
        middle = f" '{_name(table[path[0]][int(path[1])])}' backbone" if path[-1] == "backbone" else ""
        return f"{where}{middle}: unknown name '{word[:100]}'. {nearest(word[:100], names)}"
    if path[:1] == ("seeds",) and kind != "too_long":
        return f"recipe: seeds must be a list of distinct whole numbers from 0, got {shorten(table['seeds'])}."
    if len(path) == 1 and path[0] in LISTS and kind != "too_long":
        shown = "none" if kind == "missing" else shorten(table[path[0]])
        return f"recipe: [[{path[0]}]] must be a list of names or tables, got {shown}."
    if kind in ("model_type", "model_attributes_type", "dataclass_type", "dict_type"):
        return f"{where}{_dotted(rest)}: must be a table, got {shorten(value)}."
    if kind == "missing":
        return f"{where}: needs {'.'.join(rest)}."
    message = issue["msg"].removeprefix("Value error, ")
    shown = "" if kind == "refused" or isinstance(value, dict) or not rest else f" (got {shorten(value)})"
    return f"{where}{_dotted(rest)}: {message}{shown}."


def _dotted(rest: Sequence[str]) -> str:
    return f": {'.'.join(rest)}" if rest else ""


def _split_place(path: tuple[str, ...], table: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return what a message calls the entry or table of a path, and the rest of the path."""
    if not path:
        return "recipe", ()
    if path[0] in LISTS and len(path) > 1:
        entry = table[path[0]][int(path[1])]
        named = f" '{_name(entry)}'" if isinstance(entry, dict) and isinstance(entry.get("name"), str) else ""
        return f"[[{path[0]}]]{named}", path[2:]
    if path[0] in ("data", "training", "scoring"):
        return f"[{path[0]}]", path[1:]
    return "recipe", path


def _name(entry: Mapping[str, Any]) -> str:
    label = entry.get("label")
    return (label if isinstance(label, str) else str(entry.get("name")))[:100]


def _names(path: tuple[str, ...]) -> list[str]:
    if path[:1] == ("threats",):
        return list(BACKBONES if path[-1:] == ("backbone",) else THREATS)
    return [name for table in _KNOWN_NAMES.get(path[0] if path else "", ()) for name in table]


def _hint(path: tuple[str, ...], table: Mapping[str, Any], keys: Sequence[str]) -> str:
    known = _known_keys(path[:-1], table, keys)
    return nearest(path[-1], known) if known else "It has no settings."


def _known_keys(path: tuple[str, ...], table: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Return the keys of the table at a path."""
    if not path:
        return list(keys)
    if path[0] in _SIMPLE_TABLES:
        return list(settings_of(_SIMPLE_TABLES[path[0]]))
    if path[0] == "data":
        return ["name", *settings_of(DATASETS[table["data"]["name"]])]
    entry = table[path[0]][int(path[1])]
    return _ENTRY_KEYS[path[0]](entry, path[2:])


def _threat_keys(entry: Mapping[str, Any], rest: tuple[str, ...]) -> list[str]:
    if rest == ("backbone",):
        return ["name", "label", *settings_of(BACKBONES[entry["backbone"]["name"]])]
    return ["name", "tap", "backbone", *(["classes"] if THREATS[entry["name"]].goal == "class-inversion" else [])]


def _attack_keys(entry: Mapping[str, Any], rest: tuple[str, ...]) -> list[str]:
    name = entry["name"]
    if rest == ("conditions",):
        return list(settings_of(Conditions))
    if name in ATTACKS:
        return ["name", "label", "conditions", *settings_of(ATTACKS[name])]
    return ["name", "label", *(["preset"] if CLASS_ATTACKS[name].presets else []), *settings_of(CLASS_ATTACKS[name])]


def _defense_keys(entry: Mapping[str, Any], rest: tuple[str, ...]) -> list[str]:
    name = entry["name"]
    if rest:
        return list(settings_of(DEFENSES[rest[0]]))
    own = settings_of(DEFENSES[name]) if name in DEFENSES else split_name(name, DEFENSES) or []
    return ["name", "label", "sweep", *own]


_SIMPLE_TABLES: Mapping[str, type] = {"training": Fit, "scoring": Scoring, "expected_flags": ExpectedFlag}
_ENTRY_KEYS = {"threats": _threat_keys, "attacks": _attack_keys, "defenses": _defense_keys}
