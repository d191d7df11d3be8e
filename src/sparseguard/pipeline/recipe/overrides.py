"""``--set key=value``: changing a recipe's values from the command line."""

from __future__ import annotations

import tomllib
from typing import Any

from sparseguard.core.errors import RecipeError, nearest


def apply_override(table: dict[str, Any], override: str) -> None:
    """Change a recipe's plain values by one ``key=value``.

    Raises:
        RecipeError: when it is not of that form, or addresses an entry the recipe does not have.

    Example:
        >>> table = {"fit": {"epochs": 20}, "defenses": ["none", "sca"]}
        >>> apply_override(table, "defenses.sca.lambd=0.25")
        >>> table["defenses"]
        ['none', {'name': 'sca', 'lambd': 0.25}]
    """
    key, separator, text = override.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not separator or not all(path):
        raise RecipeError(f"--set {override}: expected key=value, such as fit.epochs=3.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    here: Any = table
    for depth, part in enumerate(path[:-1]):
        here = _descend(here, part, path[: depth + 1], override)
    if not isinstance(here, dict):
        raise RecipeError(f"--set {override}: '{'.'.join(path[:-1])}' has no keys.")
    here[path[-1]] = value


def _descend(here: Any, part: str, so_far: list[str], override: str) -> Any:
    if isinstance(here, dict):
        inner = here.setdefault(part, {})
        if isinstance(inner, str) and part in ("backbone", "data"):
            here[part] = inner = {"name": inner}
        return inner
    if isinstance(here, list):
        for index, entry in enumerate(here):
            if entry == part:
                here[index] = {"name": part}
                return here[index]
            if isinstance(entry, dict) and part in (entry.get("name"), entry.get("label")):
                return entry
        names = [entry if isinstance(entry, str) else str(entry.get("name")) for entry in here]
        raise RecipeError(f"--set {override}: '{'.'.join(so_far)}' is not in the recipe. {nearest(part, names)}")
    raise RecipeError(f"--set {override}: '{'.'.join(so_far)}' is no table.")
