"""Limits of recipes, so that none can exhaust memory: of the text before it is parsed, and of its values."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from sparseguard.core.errors import RecipeError

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
"""Tables and lists inside each other."""
MAX_SEGMENTS = 8
"""Parts of a dotted key."""
MAX_KEY = 100
"""Characters of a key, or of a part of a dotted key."""
MAX_NAME = 160
"""Characters of a name or label."""
MAX_TEXT = 4096
"""Characters of any other string."""
MAX_DIGITS = 40
MAX_INTEGER = 2**63
MAX_ENTRIES = 1000
"""Entries of a list, keys of a table, defenses after sweeps, seeds."""
MAX_VALUES = 50_000
"""Values in a recipe, all together."""
MAX_CASES = 10_000
"""Defenses x threats x seeds."""

_QUOTED = re.compile(
    r"'''(?:[^']|'(?!''))*+(?:'''|\Z)"
    r'|"""(?:[^"\\]|\\.|"(?!""))*+(?:"""|\\?\Z)'
    r"|'[^'\n]*+(?:'|(?=\n)|\Z)"
    r'|"(?:[^"\\\n]|\\[^\n])*+(?:"|\\?(?=\n)|\\?\Z)'
    r"|\#[^\n]*+",
    re.DOTALL,
)
_DOTTED = re.compile(rf"(?<![\w\-])[\w\-]++(?:[ \t]*+\.[ \t]*+[\w\-]++){{{MAX_SEGMENTS},}}+")
_DIGITS = re.compile(rf"(?<![\d_])(?:\d_?+){{{MAX_DIGITS + 1},}}+")
_BRACKET = re.compile(r"[\[\]{}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def read_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML whose keys, numbers and nesting are within the limits.

    Raises:
        RecipeError: when the text is not valid TOML or exceeds a limit.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise RecipeError(f"{where}: has more than {MAX_BYTES >> 20} MiB.")
    bare = _QUOTED.sub("_", text)
    if _DOTTED.search(bare):
        raise RecipeError(f"{where}: a dotted key has more than {MAX_SEGMENTS} parts.")
    if _DIGITS.search(bare):
        raise RecipeError(f"{where}: a number has more than {MAX_DIGITS} digits.")
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MAX_DEPTH:
            raise RecipeError(f"{where}: tables and lists are nested deeper than {MAX_DEPTH}.")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{where}: not valid TOML: {error}.") from None


def copy_values(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of plain values that are within the limits.

    Raises:
        RecipeError: for a value that TOML does not have, a date or time, or one that exceeds a limit.
    """
    copy = _copy(table, "recipe", 0, _Counter())
    if not isinstance(copy, dict):
        raise RecipeError(f"recipe: must be a table, got {type(table).__name__}.")
    return copy


class _Counter:
    def __init__(self) -> None:
        self.values = 0

    def count(self) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            raise RecipeError(f"recipe: has more than {MAX_VALUES:,} values.")


def _copy(value: Any, where: str, depth: int, counter: _Counter) -> Any:
    counter.count()
    if depth > MAX_DEPTH:
        raise RecipeError(f"recipe: tables and lists are nested deeper than {MAX_DEPTH}.")
    if isinstance(value, (Mapping, list, tuple)) and len(value) > MAX_ENTRIES:
        raise RecipeError(f"{where}: has {len(value):,} entries, more than {MAX_ENTRIES:,}.")
    if isinstance(value, Mapping):
        return {
            _check_key(key, where): _copy(
                inner, f"recipe: {key}" if depth == 0 else f"{where}.{key}", depth + 1, counter
            )
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_copy(inner, f"{where}.{index}", depth + 1, counter) for index, inner in enumerate(value)]
    return _check_value(value, where)


def _check_key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise RecipeError(f"{where}: the key {shorten(key)} is no string.")
    if len(key) > MAX_KEY:
        raise RecipeError(f"{where}: the key {shorten(key)} has {len(key):,} characters, more than {MAX_KEY}.")
    if _CONTROL.search(key):
        raise RecipeError(f"{where}: the key {shorten(key)} has a control character.")
    return key


def _check_value(value: Any, where: str) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise RecipeError(f"{where}: the string has {len(value):,} characters, more than {MAX_TEXT:,}.")
    if isinstance(value, str) and "\0" in value:
        raise RecipeError(f"{where}: the string has a NUL character.")
    if isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
        raise RecipeError(f"{where}: the number exceeds 64 bits.")
    if value is not None and not isinstance(value, (str, int, float)):
        raise RecipeError(f"{where}: got {shorten(value)}; a recipe has strings, numbers, booleans, lists and tables.")
    return value


def check_name(name: str) -> str:
    """Return a name that can be a folder's.

    Raises:
        ValueError: for an empty or long name, a path, or one with control characters.
    """
    check_label(name)
    if name in (".", "..") or "/" in name or "\\" in name:
        raise ValueError("must be a name, not a path")
    return name


def check_label(label: str) -> str:
    """Return a name or label that tables can show.

    Raises:
        ValueError: for an empty or long one, or one with control characters.
    """
    if not label.strip():
        raise ValueError("must not be empty")
    if len(label) > MAX_NAME:
        raise ValueError(f"must have at most {MAX_NAME} characters, has {len(label):,}")
    if _CONTROL.search(label):
        raise ValueError("must not have control characters")
    return label


def shorten(value: Any) -> str:
    """Return a value as a message shows it, with at most 80 characters."""
    if isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
        return "a number of more than 64 bits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."
