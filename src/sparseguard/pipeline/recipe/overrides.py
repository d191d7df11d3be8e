"""``--set key=value``: change a recipe's values from the command line."""

from __future__ import annotations

from typing import Any

from sparseguard.core.errors import RecipeError, nearest
from sparseguard.pipeline.recipe.validation.limits import MAX_KEY, MAX_SEGMENTS, read_toml
from sparseguard.pipeline.recipe.validation.vocabulary import translate_path


def apply_override(table: dict[str, Any], override: str) -> None:
    """Change a recipe's plain values by one ``key=value``.

    Raises:
        RecipeError: when it is not of that form, addresses an entry the recipe does not have, or exceeds a limit.

    Example:
        >>> table = {"training": {"epochs": 20}, "defenses": ["none", "sca"]}
        >>> apply_override(table, "defenses.sca.lambd=0.25")
        >>> table["defenses"]
        ['none', {'name': 'sca', 'lambd': 0.25}]
    """
    shown = override if len(override) <= MAX_KEY else f"{override[:MAX_KEY]} ..."
    key, separator, text = override.partition("=")
    if key.count(".") >= MAX_SEGMENTS:
        raise RecipeError(f"--set {shown}: the key has more than {MAX_SEGMENTS} parts.")
    path = [word.strip() for word in key.split(".")]
    if not separator or not all(path):
        raise RecipeError(f"--set {shown}: expected key=value, such as training.epochs=3.")
    if any(len(word) > MAX_KEY for word in path):
        raise RecipeError(f"--set {shown}: a part of the key has more than {MAX_KEY} characters.")
    path = translate_path(path)
    value = _parse_value(text, f"--set {shown}")
    target: Any = table
    for depth, word in enumerate(path[:-1]):
        target = _descend(target, word, path[: depth + 1], shown)
    if not isinstance(target, dict):
        raise RecipeError(f"--set {shown}: '{'.'.join(path[:-1])}' has no keys.")
    target[path[-1]] = value


def _parse_value(text: str, where: str) -> Any:
    """Return a value as TOML has it; a text that is none is a string."""
    try:
        parsed = read_toml(f"value = {text}", where)
    except RecipeError as error:
        if "not valid TOML" in str(error):
            return text.strip()
        raise
    if len(parsed) > 1:
        raise RecipeError(f"{where}: expected one value.")
    return parsed["value"]


def _descend(table: Any, word: str, path: list[str], shown: str) -> Any:
    if isinstance(table, dict):
        inner = table.setdefault(word, {})
        if isinstance(inner, str) and word in ("backbone", "data"):
            table[word] = inner = {"name": inner}
        return inner
    if isinstance(table, list):
        for index, entry in enumerate(table):
            if entry == word:
                table[index] = {"name": word}
                return table[index]
            if isinstance(entry, dict) and word in (entry.get("name"), entry.get("label")):
                return entry
        names = [str(entry.get("name") if isinstance(entry, dict) else entry)[:MAX_KEY] for entry in table]
        raise RecipeError(f"--set {shown}: '{'.'.join(path)}' is not in the recipe. {nearest(word, names)}")
    raise RecipeError(f"--set {shown}: '{'.'.join(path)}' is no table.")
