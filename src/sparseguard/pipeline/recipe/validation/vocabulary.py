"""Words of the first release that recipes and ``--set`` may still use, with a notice."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from sparseguard.core.errors import DeprecatedWordWarning, RecipeError

KEYS = {"judge": "scoring", "fit": "training"}
SCORING_KEYS = {"neighbours": "neighbors"}
DATA_KEYS = {"attacker_train": "auxiliary", "attacker_val": "auxiliary_val"}
ATTACK_KEYS = {"setting": "conditions"}
CONDITION_KEYS = {
    "repeats": "queries",
    "share": "auxiliary_fraction",
    "data": "dataset",
    "images": "max_images",
}
ATTACK_NAMES = {"nearest-public": "nearest-neighbor"}
HYPERPARAMETERS: Mapping[str, Mapping[str, str]] = {
    "gradient-inversion": {"prior": "prior_weight"},
    "local-ridge": {"neighbours": "neighbors"},
    "prior-inversion": {"anchor": "proximal_weight", "shares": "fractions"},
}
"""Of a component: first release's setting -> today's."""
FLAG_NAMES: Mapping[str, str] = {}


def translate_recipe(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's plain values with today's words.

    Raises:
        RecipeError: when an old word and its new one are both given.
    """
    notices: dict[str, str] = {}
    recipe = _rename_keys(table, KEYS, "recipe", notices)
    for key, words in (("data", DATA_KEYS), ("scoring", SCORING_KEYS)):
        if isinstance(recipe.get(key), dict):
            recipe[key] = _rename_keys(recipe[key], words, f"[{key}]", notices)
    if isinstance(recipe.get("attacks"), list):
        recipe["attacks"] = [_translate_attack(entry, notices) for entry in recipe["attacks"]]
    if isinstance(recipe.get("defenses"), list):
        recipe["defenses"] = [_translate_component(entry, "[[defenses]]", notices) for entry in recipe["defenses"]]
    if isinstance(recipe.get("expected_flags"), list):
        recipe["expected_flags"] = [_translate_flag(entry, notices) for entry in recipe["expected_flags"]]
    _warn(notices)
    return recipe


def translate_path(path: list[str]) -> list[str]:
    """Return the dotted key of a ``--set`` with today's words."""
    notices: dict[str, str] = {}
    words = [_rename_word(path[0], KEYS, notices), *path[1:]]
    if words[0] in ("data", "scoring") and len(words) > 1:
        words[1] = _rename_word(words[1], DATA_KEYS if words[0] == "data" else SCORING_KEYS, notices)
    if words[0] == "attacks" and len(words) > 1:
        words[1] = _rename_word(words[1], ATTACK_NAMES, notices)
        if len(words) > 2:
            words[2] = _rename_word(words[2], {**ATTACK_KEYS, **HYPERPARAMETERS.get(words[1], {})}, notices)
        if len(words) > 3 and words[2] == "conditions":
            words[3] = _rename_word(words[3], CONDITION_KEYS, notices)
    _warn(notices)
    return words


def _translate_attack(entry: Any, notices: dict[str, str]) -> Any:
    entry = _translate_component(entry, "[[attacks]]", notices)
    if not isinstance(entry, dict):
        return _rename_word(entry, ATTACK_NAMES, notices)
    entry = _rename_keys(entry, ATTACK_KEYS, "[[attacks]]", notices)
    if "name" in entry:
        entry["name"] = _rename_word(entry["name"], ATTACK_NAMES, notices)
    if isinstance(entry.get("conditions"), dict):
        entry["conditions"] = _rename_keys(entry["conditions"], CONDITION_KEYS, "[[attacks]] conditions", notices)
    return entry


def _translate_component(entry: Any, where: str, notices: dict[str, str]) -> Any:
    if not isinstance(entry, dict):
        return entry
    name = entry.get("name")
    words = HYPERPARAMETERS.get(name, {}) if isinstance(name, str) else {}
    return _rename_keys(entry, words, f"{where} '{name}'", notices)


def _translate_flag(entry: Any, notices: dict[str, str]) -> Any:
    if not isinstance(entry, dict) or "flag" not in entry:
        return entry
    return {**entry, "flag": _rename_word(entry["flag"], FLAG_NAMES, notices)}


def _rename_keys(
    table: Mapping[str, Any], words: Mapping[str, str], where: str, notices: dict[str, str]
) -> dict[str, Any]:
    for old, new in words.items():
        if old in table and new in table:
            raise RecipeError(f"{where}: has both '{old}' and '{new}', which mean the same. Remove '{old}'.")
    return {_rename_word(key, words, notices): value for key, value in table.items()}


def _rename_word(word: Any, words: Mapping[str, str], notices: dict[str, str]) -> Any:
    if not isinstance(word, str) or word not in words:
        return word
    notices[word] = words[word]
    return words[word]


def _warn(notices: Mapping[str, str]) -> None:
    if notices:
        changes = ", ".join(f"'{old}' is now '{new}'" for old, new in notices.items())
        warnings.warn(
            f"recipe: {changes}. The next release no longer reads the old words.",
            DeprecatedWordWarning,
            stacklevel=2,
        )
