"""Settings: frozen keyword-only dataclasses whose fields are the recipe's keys, the record's config and the cache key.

A component (a defense, an attack, a backbone ...) is its own settings object. `parse` builds one from plain values
and refuses unknown ones; `describe` returns its plain values.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, dataclass_transform

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass

from sparseguard.core.errors import RecipeError, nearest

T = TypeVar("T")


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


OddSize = Annotated[int, pydantic.Field(ge=1), pydantic.AfterValidator(_odd)]
"""Side of a kernel that can be centred on a pixel."""

Count = Annotated[int, pydantic.Field(ge=1)]
Positive = Annotated[float, pydantic.Field(gt=0)]
NonNegative = Annotated[float, pydantic.Field(ge=0)]
PositiveFraction = Annotated[float, pydantic.Field(gt=0, le=1)]

_CONFIG = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field, pydantic.Field))
def settings(cls: type[T]) -> type[T]:
    """Return a class as a frozen, keyword-only dataclass that validates its values."""
    return pydantic_dataclass(frozen=True, kw_only=True, config=_CONFIG)(cls)  # type: ignore[return-value]


def parse(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Build settings of class ``cls`` from plain values.

    Args:
        cls: a class made with `settings`.
        table: plain values, as TOML has them. Types are strict: ``"0.5"`` is no number.
        where: name of the table in messages, e.g. ``[training]``.

    Raises:
        RecipeError: for an unknown key (the known ones are listed, a near miss is suggested) or a refused value.

    Example:
        >>> from sparseguard.core.config import parse, settings
        >>> @settings
        ... class Noise:
        ...     sigma: float = 0.5
        >>> parse(Noise, {"sigma": 1}, "[defense]")
        Noise(sigma=1.0)
    """
    try:
        text = json.dumps(dict(table))
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"{where}: {error}; expected strings, numbers of at most 64 bits, lists and tables."
        ) from None
    try:
        return pydantic.TypeAdapter(cls).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        raise RecipeError("\n".join(_explain(cls, issue, where) for issue in error.errors())) from None


def parse_named(table: Mapping[str, Any], components: Mapping[str, type[Any]], where: str) -> tuple[str, Any]:
    """Build the component that a table names; return its name and the component.

    Raises:
        RecipeError: when ``name`` is missing or unknown, or `parse` refuses the rest.
    """
    name = table.get("name")
    if not isinstance(name, str):
        raise RecipeError(f"{where}: needs a name. Known: {', '.join(sorted(components))}.")
    if name not in components:
        raise RecipeError(f"{where}: unknown name '{name}'. {nearest(name, components)}")
    rest = {key: value for key, value in table.items() if key != "name"}
    return name, parse(components[name], rest, f"{where} '{name}'")


def describe(component: Any) -> dict[str, Any]:
    """Return the plain values of a settings object, as in records and cache keys.

    Example:
        >>> from sparseguard.defenses import DEFENSES
        >>> describe(DEFENSES["sparse-standard"](lambd=0.5))["lambd"]
        0.5
    """
    plain = pydantic.TypeAdapter(type(component)).dump_python(component, mode="json")
    return dict(plain)


def _explain(cls: type[Any], issue: Any, where: str) -> str:
    path = ".".join(str(part) for part in issue["loc"])
    if issue["type"] == "unexpected_keyword_argument":
        known = [field.name for field in dataclasses.fields(cls)]
        hint = nearest(str(issue["loc"][-1]), known) if known else "It has no settings."
        return f"{where}: unknown key '{path}'. {hint}"
    value = issue["input"]
    shown = "" if issue["type"] == "missing" else f" (got {value!r})"
    return f"{where}: {path or 'value'}: {issue['msg']}{shown}."
