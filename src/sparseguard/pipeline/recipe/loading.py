"""Recipes from TOML files, from those that ship with the package, and from plain values."""

from __future__ import annotations

import importlib.resources
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from sparseguard.core.errors import RecipeError
from sparseguard.pipeline.recipe.overrides import apply_override
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.recipe.resolve import resolve_recipe
from sparseguard.pipeline.recipe.validation.document import document_model
from sparseguard.pipeline.recipe.validation.expansion import expand_recipe
from sparseguard.pipeline.recipe.validation.limits import MAX_BYTES, copy_values, read_toml
from sparseguard.pipeline.recipe.validation.messages import explain_errors
from sparseguard.pipeline.recipe.validation.vocabulary import translate_recipe


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a TOML file, or by the name of one that ships with the package (``demo``).

    Args:
        source: path or name.
        overrides: ``key=value`` each, the value as in TOML (a bare word is a string), the key dotted; entries of a list
            of tables are addressed by their name or label: ``training.epochs=3``, ``defenses.sca.lambd=0.25``.

    Raises:
        RecipeError: when it cannot be read, exceeds a limit, or holds anything unknown or refused.
    """
    path = Path(source)
    if path.suffix == ".toml" or os.path.isfile(path):  # noqa: PTH113 - does not raise for names that are no path
        text = _read_text(path)
    else:
        shipped = list_shipped_recipes()
        if str(source) not in shipped:
            known = ", ".join(sorted(shipped))
            raise RecipeError(f"no recipe '{source}': no such file, and none ships by that name. Known: {known}.")
        text = shipped[str(source)]
    table = translate_recipe(read_toml(text, str(source)))
    for override in overrides:
        apply_override(table, override)
        table = translate_recipe(table)
    return parse_recipe(table)


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """Build a recipe from plain values, as TOML has them.

    Raises:
        RecipeError: for anything unknown, missing or refused; the message has a sentence for each error.
    """
    problems: list[str] = []
    full = expand_recipe(translate_recipe(copy_values(table)), problems)
    model = document_model()
    try:
        document = model.model_validate_json(json.dumps(full), strict=True)
    except pydantic.ValidationError as error:
        problems += explain_errors(error, full, tuple(model.model_fields))
    if problems:
        raise RecipeError("\n".join(problems))
    return resolve_recipe(document)


def list_shipped_recipes() -> dict[str, str]:
    """Return the text of every recipe in the package by its name."""
    folder = importlib.resources.files("sparseguard.pipeline.recipe") / "shipped"
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(f"{path}: has more than {MAX_BYTES >> 20} MiB.")
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}).") from None
