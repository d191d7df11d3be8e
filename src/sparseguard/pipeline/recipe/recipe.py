"""Recipes: a grid of experiments as TOML."""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sparseguard.attacks import ATTACKS, CLASS_ATTACKS
from sparseguard.checks import CHECKS
from sparseguard.core.config import parse, parse_named
from sparseguard.core.errors import RecipeError, nearest
from sparseguard.data import DATASETS, DataSet
from sparseguard.pipeline.recipe.conditions import Setting
from sparseguard.pipeline.recipe.entries import ExpectedFlag, Named, NamedAttack, NamedClassAttack, NamedDefense, Threat
from sparseguard.pipeline.recipe.overrides import apply_override
from sparseguard.pipeline.recipe.sweeps import defense, named, swept
from sparseguard.pipeline.scoring.scorers import Judge
from sparseguard.targets import BACKBONES, Fit
from sparseguard.targets.backbones.torchvision import expand_short_name
from sparseguard.types import Knowledge

TAPS = {"end-to-end": "last_hidden", "split": "first_linear", "plug-and-play": "logits"}
"""The paper's threat models (section 2) and the tap each of them leaks."""

BACKBONE_OF = {"end-to-end": "linear", "split": "linear-shallow", "plug-and-play": "linear"}

GOALS: dict[str, Literal["instances", "classes"]] = {
    "end-to-end": "instances",
    "split": "instances",
    "plug-and-play": "classes",
}
"""Whether a threat is to single images or to classes."""

DEFAULT_THREATS = [name for name, goal in GOALS.items() if goal == "instances"]

RESERVED = ("private", "probe", "rank")
"""Labels that seeds of other things are derived from."""

KEYS = ("name", "description", "seeds", "data", "fit", "threats", "defenses", "attacks", "judge", "expected_flags")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A parsed recipe: every piece is built and checked."""

    name: str
    description: str
    seeds: tuple[int, ...]
    data: Named
    fit: Fit
    threats: tuple[Threat, ...]
    defenses: tuple[NamedDefense, ...]
    attacks: tuple[NamedAttack, ...]
    class_attacks: tuple[NamedClassAttack, ...]
    judge: Judge
    expected_flags: tuple[ExpectedFlag, ...]

    @property
    def dataset(self) -> DataSet:
        """The data set's settings."""
        found: DataSet = self.data.piece
        return found


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a TOML file, or by the name of one that ships with the package (``demo``).

    Args:
        source: path or name.
        overrides: ``key=value`` each, the value as in TOML (a bare word is a string), the key dotted; entries of a list
            of tables are addressed by their name: ``fit.epochs=3``, ``defenses.sca.lambd=0.25``.

    Raises:
        RecipeError: when it cannot be read, or holds something unknown or refused.
    """
    path = Path(source)
    if path.suffix == ".toml" or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read ({error}).") from None
    else:
        shipped = shipped_recipes()
        if str(source) not in shipped:
            raise RecipeError(f"no recipe '{source}': no such file, and none ships by that name. {_known(shipped)}")
        text = shipped[str(source)]
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not valid TOML: {error}.") from None
    for override in overrides:
        apply_override(table, override)
    return parse_recipe(table)


def in_batches(recipe: Recipe, size: int) -> Recipe:
    """Return the recipe with every attack on classes, and every search by gradients, of so many images at once.

    Raises:
        RecipeError: when no attack of the recipe has a batch size to bound.
    """
    searches = [one for one in recipe.attacks if one.knowledge == Knowledge.WHITE_BOX]
    if not (searches or recipe.class_attacks):
        raise RecipeError("--batch: no attack of this recipe searches by gradients, so there is no memory to bound.")
    smaller = {one.label: replace(one.piece, batch_size=size) for one in (*searches, *recipe.class_attacks)}
    return replace(
        recipe,
        attacks=tuple(replace(one, piece=smaller.get(one.label, one.piece)) for one in recipe.attacks),
        class_attacks=tuple(replace(one, piece=smaller[one.label]) for one in recipe.class_attacks),
    )


def shipped_recipes() -> dict[str, str]:
    """Return the text of every recipe in the package by its name."""
    folder = importlib.resources.files("sparseguard.pipeline.recipe") / "shipped"
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """Build a recipe from plain values, as TOML gives them.

    Raises:
        RecipeError: for anything unknown, missing or refused, saying where.
    """
    for key in table:
        if key not in KEYS:
            raise RecipeError(f"recipe: unknown key '{key}'. {nearest(key, KEYS)}")
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise RecipeError("recipe: needs a name.")
    description = table.get("description", "")
    if not isinstance(description, str):
        raise RecipeError("recipe: description must be a string.")
    data_name, data = parse_named(_entry(table.get("data", {}), "[data]"), DATASETS, "[data]")
    threats = tuple(_threat(entry) for entry in _entries(table, "threats", DEFAULT_THREATS))
    usual = list((ATTACKS if any(threat.goal == "instances" for threat in threats) else CLASS_ATTACKS).builtin)
    attacks = _entries(table, "attacks", usual)
    recipe = Recipe(
        name=name,
        description=description,
        seeds=_seeds(table.get("seeds", [0])),
        data=Named(name=data_name, label=data_name, piece=data),
        fit=parse(Fit, _table(table.get("fit", {}), "[fit]"), "[fit]"),
        threats=threats,
        defenses=tuple(
            defense(entry) for given in _entries(table, "defenses", None) for entry in swept(given, "[[defenses]]")
        ),
        attacks=tuple(_attack(entry) for entry in attacks if entry.get("name") not in CLASS_ATTACKS),
        class_attacks=tuple(_class_attack(entry) for entry in attacks if entry.get("name") in CLASS_ATTACKS),
        judge=parse(Judge, _table(table.get("judge", {}), "[judge]"), "[judge]"),
        expected_flags=tuple(
            parse(ExpectedFlag, entry, "[[expected_flags]]") for entry in _entries(table, "expected_flags", [])
        ),
    )
    if any(attack.setting.data == data_name for attack in recipe.attacks):
        raise RecipeError(f"[[attacks]] setting: data '{data_name}' is the set under attack. Name another one.")
    _check_labels("defenses", [one.label for one in recipe.defenses])
    _check_labels("attacks", [attack.label for attack in (*recipe.attacks, *recipe.class_attacks)])
    _check_labels("threats", [threat.name for threat in recipe.threats])
    _check_attacks(recipe)
    _check_expected(recipe)
    return recipe


def _check_attacks(recipe: Recipe) -> None:
    goals = {threat.goal for threat in recipe.threats}
    instances = any(attack.competes and attack.level == Knowledge.BLACK_BOX for attack in recipe.attacks)
    if "instances" in goals and not instances:
        raise RecipeError("[[attacks]]: needs at least one attack on outputs that is no floor or control: 'ridge'.")
    if "classes" in goals and not any(not attack.piece.control for attack in recipe.class_attacks):
        raise RecipeError("[[attacks]]: a threat to classes needs an attack on classes: 'plug-and-play'.")
    unused = recipe.attacks if "instances" not in goals else recipe.class_attacks if "classes" not in goals else ()
    if unused:
        raise RecipeError(
            f"[[attacks]]: no threat of this recipe is one '{unused[0].label}' can carry out. Name one in [[threats]]: "
            f"{', '.join(name for name, goal in GOALS.items() if goal not in goals)}."
        )
    for threat in recipe.threats:
        for name in threat.classes:
            if recipe.dataset.classes and name not in recipe.dataset.classes:
                raise RecipeError(
                    f"[[threats]] '{threat.name}': unknown class '{name}'. {nearest(name, recipe.dataset.classes)}"
                )


def _check_expected(recipe: Recipe) -> None:
    known = {
        "flag": list(CHECKS),
        "defense": [one.label for one in recipe.defenses],
        "threat": [threat.name for threat in recipe.threats],
    }
    for expected in recipe.expected_flags:
        for key, names in known.items():
            value = getattr(expected, key)
            if value is not None and value not in names:
                raise RecipeError(f"[[expected_flags]]: unknown {key} '{value}'. {nearest(value, names)}")


def _seeds(value: Any) -> tuple[int, ...]:
    valid = isinstance(value, list) and value and all(type(seed) is int and 0 <= seed < 2**31 for seed in value)
    if not valid or len(set(value)) != len(value):
        raise RecipeError(f"recipe: seeds must be a list of distinct whole numbers from 0, got {value!r}.")
    return tuple(value)


def _threat(entry: Mapping[str, Any]) -> Threat:
    name = entry.get("name")
    where = "[[threats]]"
    if name not in TAPS:
        raise RecipeError(f"{where}: unknown name '{name}'. {nearest(str(name), TAPS)}")
    known = ("name", "tap", "backbone", *(("classes",) if GOALS[name] == "classes" else ()))
    for key in entry:
        if key not in known:
            raise RecipeError(f"{where} '{name}': unknown key '{key}'. {nearest(key, known)}")
    tap = entry.get("tap", TAPS[name])
    if not isinstance(tap, str):
        raise RecipeError(f"{where} '{name}': tap must be a string, got {tap!r}.")
    if GOALS[name] == "classes" and tap != TAPS[name]:
        raise RecipeError(f"{where} '{name}': it leaks {TAPS[name]}, not '{tap}'.")
    backbone = expand_short_name(_entry(entry.get("backbone", BACKBONE_OF[name]), f"{where} '{name}' backbone"))
    classes = entry.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
        raise RecipeError(f"{where} '{name}': classes must be a list of class names, got {classes!r}.")
    if len(set(classes)) < len(classes):
        raise RecipeError(f"{where} '{name}': a class appears twice in {classes}.")
    return Threat(
        name=name,
        tap=tap,
        backbone=named(backbone, BACKBONES, f"{where} '{name}' backbone"),
        goal=GOALS[name],
        classes=tuple(classes),
    )


def _class_attack(entry: Mapping[str, Any]) -> NamedClassAttack:
    where = f"[[attacks]] '{entry['name']}'"
    presets = CLASS_ATTACKS[entry["name"]].presets
    chosen = entry.get("preset")
    if chosen is not None and chosen not in presets:
        raise RecipeError(f"{where}: unknown preset '{chosen}'. {nearest(str(chosen), presets)}")
    rest = {key: value for key, value in entry.items() if key != "preset"}
    full = {**({} if chosen is None else presets[chosen]), **rest}
    found = named({"label": entry["name"], **full}, CLASS_ATTACKS, "[[attacks]]")
    if found.label in RESERVED:
        raise RecipeError(f"[[attacks]]: no attack may have the label '{found.label}'. Choose another.")
    if found.piece.prior_source() == "":
        raise RecipeError(f"{where}: needs a prior: prior = 'NAME or FOLDER'. See `sparseguard prior list`.")
    return NamedClassAttack(name=found.name, label=found.label, piece=found.piece)


def _attack(entry: Mapping[str, Any]) -> NamedAttack:
    rest = {key: value for key, value in entry.items() if key != "setting"}
    found = named({"label": entry.get("name"), **rest}, ATTACKS, "[[attacks]]")
    where = f"[[attacks]] '{found.label}' setting"
    if found.label in RESERVED:
        raise RecipeError(f"[[attacks]]: no attack may have the label '{found.label}'. Choose another.")
    setting = parse(Setting, _table(entry.get("setting", {}), where), where)
    if setting.data is not None and setting.data not in DATASETS:
        raise RecipeError(f"{where}: unknown data '{setting.data}'. {nearest(setting.data, DATASETS)}")
    if found.piece.floor and setting != Setting():
        raise RecipeError(f"{where}: '{found.name}' is a floor; it has no other setting.")
    return NamedAttack(name=found.name, label=found.label, piece=found.piece, setting=setting)


def _entries(table: Mapping[str, Any], key: str, default: list[str] | None) -> list[dict[str, Any]]:
    value = table.get(key, default)
    if not isinstance(value, list) or (not value and key != "expected_flags"):
        raise RecipeError(f"recipe: [[{key}]] must be a list of names or tables, got {value!r}.")
    return [_entry(entry, f"[[{key}]]") for entry in value]


def _entry(value: Any, where: str) -> dict[str, Any]:
    return {"name": value} if isinstance(value, str) else _table(value, where)


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: must be a table, got {value!r}.")
    return value


def _check_labels(key: str, labels: list[str]) -> None:
    for label in labels:
        if labels.count(label) > 1:
            raise RecipeError(f"[[{key}]]: '{label}' appears twice. Give one of them a label of its own.")


def _known(names: Mapping[str, Any]) -> str:
    return f"Known: {', '.join(sorted(names))}."


__all__ = ["BACKBONE_OF", "TAPS", "Recipe", "in_batches", "load_recipe", "parse_recipe", "shipped_recipes"]
