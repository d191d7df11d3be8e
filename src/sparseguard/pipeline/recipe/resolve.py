"""Resolved recipe of a validated document: components with labels, and the checks across entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from sparseguard.attacks import CLASS_ATTACKS
from sparseguard.checks import CHECKS
from sparseguard.core.config import describe
from sparseguard.core.errors import RecipeError, nearest
from sparseguard.data import DATASETS
from sparseguard.defenses.combined import Combined
from sparseguard.pipeline.recipe.conditions import Conditions
from sparseguard.pipeline.recipe.entries import NamedAttack, NamedClassAttack, NamedComponent, NamedDefense, Threat
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.pipeline.recipe.threats import THREATS
from sparseguard.pipeline.recipe.validation.document import Document
from sparseguard.pipeline.recipe.validation.limits import MAX_CASES, check_label
from sparseguard.types import Knowledge

RESERVED = ("private", "probe", "rank")
"""Labels that seeds of other things are derived from."""

T = TypeVar("T")


def resolve_recipe(document: Document) -> Recipe:
    """Return the recipe of a valid document.

    Raises:
        RecipeError: for entries that do not fit each other, all of them in one message.
    """
    problems: list[str] = []
    data = NamedComponent(name=document.data.name, label=document.data.name, component=document.data.component)
    classes = [entry for entry in document.attacks if entry.name in CLASS_ATTACKS]
    others = [entry for entry in document.attacks if entry.name not in CLASS_ATTACKS]
    recipe = Recipe(
        name=document.name,
        description=document.description,
        seeds=document.seeds,
        data=data,
        training=document.training,
        threats=_collect(document.threats, _resolve_threat, problems),
        defenses=_collect(document.defenses, _resolve_defense, problems),
        attacks=_collect(others, lambda entry: _resolve_attack(entry, data.name), problems),
        class_attacks=_collect(classes, _resolve_class_attack, problems),
        scoring=document.scoring,
        expected_flags=document.expected_flags,
    )
    if not problems:
        problems = [*_check_labels(recipe), *_check_goals(recipe), *_check_classes(recipe), *_check_expected(recipe)]
        cases = len(recipe.seeds) * len(recipe.defenses) * len(recipe.threats)
        if cases > MAX_CASES:
            problems.append(f"recipe: has {cases:,} cases, more than {MAX_CASES:,}.")
    if problems:
        raise RecipeError("\n".join(problems))
    return recipe


def _collect(entries: Iterable[Any], resolve: Callable[[Any], T], problems: list[str]) -> tuple[T, ...]:
    resolved = []
    for entry in entries:
        try:
            resolved.append(resolve(entry))
        except RecipeError as error:
            problems.append(str(error))
    return tuple(resolved)


def _resolve_threat(entry: Any) -> Threat:
    backbone = entry.backbone
    label = backbone.label or _label(backbone.name, _changes(backbone.component), "[[threats]]")
    try:
        return Threat(
            name=entry.name,
            tap=entry.tap,
            backbone=NamedComponent(name=backbone.name, label=label, component=backbone.component),
            goal=THREATS[entry.name].goal,
            classes=entry.classes,
        )
    except RecipeError as error:
        raise RecipeError(f"[[threats]] '{entry.name}': {error}") from None


def _resolve_defense(entry: Any) -> NamedDefense:
    defense = entry.component
    if isinstance(defense, Combined):
        parts = defense.defenses.items()
        changes = [f"{name}.{change}" for name, part in parts for change in _changes(part)]
    else:
        changes = _changes(defense)
    return NamedDefense(
        name=entry.name, label=entry.label or _label(entry.name, changes, "[[defenses]]"), component=defense
    )


def _resolve_attack(entry: Any, data: str) -> NamedAttack:
    label, conditions = _attack_label(entry), entry.conditions
    where = f"[[attacks]] '{label}' conditions"
    if conditions.dataset is not None and conditions.dataset not in DATASETS:
        raise RecipeError(
            f"{where}: unknown dataset '{conditions.dataset[:100]}'. {_near(conditions.dataset, DATASETS)}"
        )
    if conditions.dataset == data:
        raise RecipeError(f"{where}: dataset '{data}' is the data set under attack. Name another one.")
    if entry.component.floor and conditions != Conditions():
        raise RecipeError(f"{where}: '{entry.name}' is a floor, which has no other conditions.")
    return NamedAttack(name=entry.name, label=label, component=entry.component, conditions=conditions)


def _resolve_class_attack(entry: Any) -> NamedClassAttack:
    label = _attack_label(entry)
    if entry.component.prior_source() == "":
        raise RecipeError(
            f"[[attacks]] '{entry.name}': needs a prior: prior = 'NAME or FOLDER'. See `sparseguard prior list`."
        )
    return NamedClassAttack(name=entry.name, label=label, component=entry.component)


def _attack_label(entry: Any) -> str:
    label: str = entry.label or entry.name
    if label in RESERVED:
        raise RecipeError(f"[[attacks]]: no attack may have the label '{label}'. Choose another.")
    return label


def _label(name: str, changes: Iterable[str], where: str) -> str:
    """Return the name with the settings that differ from their defaults."""
    label = " ".join([name, *changes])
    try:
        return check_label(label)
    except ValueError:
        raise RecipeError(f"{where} '{name}': its settings are too long for a label; give it a label.") from None


def _changes(component: Any) -> list[str]:
    plain, default = describe(component), describe(type(component)())
    return [
        f"{field.name}={plain[field.name]}" for field in fields(component) if plain[field.name] != default[field.name]
    ]


def _check_labels(recipe: Recipe) -> list[str]:
    labels = {
        "defenses": [defense.label for defense in recipe.defenses],
        "attacks": [attack.label for attack in (*recipe.attacks, *recipe.class_attacks)],
        "threats": [threat.name for threat in recipe.threats],
    }
    return [
        f"[[{key}]]: '{label}' appears twice. " + ("" if key == "threats" else "Give one of them a label of its own.")
        for key, names in labels.items()
        for label, count in Counter(names).items()
        if count > 1
    ]


def _check_goals(recipe: Recipe) -> list[str]:
    goals = {threat.goal for threat in recipe.threats}
    problems = []
    contenders = [
        attack
        for attack in recipe.attacks
        if attack.eligible and attack.knowledge == Knowledge.BLACK_BOX and attack.conditions.queries == 1
    ]
    if "feature-inversion" in goals and not contenders:
        problems.append("[[attacks]]: needs at least one black-box attack that is no floor or control: 'ridge'.")
    if "class-inversion" in goals and not any(not attack.component.control for attack in recipe.class_attacks):
        problems.append("[[attacks]]: a threat to classes needs a class inversion: 'plug-and-play'.")
    unused: tuple[NamedComponent, ...] = ()
    if "feature-inversion" not in goals:
        unused = recipe.attacks
    elif "class-inversion" not in goals:
        unused = recipe.class_attacks
    if unused:
        names = ", ".join(name for name, threat in THREATS.items() if threat.goal not in goals)
        problems.append(
            f"[[attacks]]: '{unused[0].label}' fits no threat of this recipe. Add one to [[threats]]: {names}."
        )
    return problems


def _check_classes(recipe: Recipe) -> list[str]:
    known = recipe.dataset.classes
    return [
        f"[[threats]] '{threat.name}': unknown class '{name[:100]}'. {_near(name, known)}"
        for threat in recipe.threats
        for name in threat.classes
        if known and name not in known
    ]


def _check_expected(recipe: Recipe) -> list[str]:
    known: dict[str, Iterable[str]] = {
        "flag": list(CHECKS),
        "defense": [defense.label for defense in recipe.defenses],
        "threat": [threat.name for threat in recipe.threats],
    }
    return [
        f"[[expected_flags]]: unknown {key} '{value[:100]}'. {_near(value, names)}"
        for expected in recipe.expected_flags
        for key, names in known.items()
        if (value := getattr(expected, key)) is not None and value not in names
    ]


def _near(word: str, known: Iterable[str] | Mapping[str, Any]) -> str:
    return nearest(word[:100], known)
