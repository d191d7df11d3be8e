"""Description of a resolved recipe for records."""

from __future__ import annotations

from typing import Any

from sparseguard.core.config import describe
from sparseguard.pipeline.plan.classes import select_classes
from sparseguard.pipeline.recipe.entries import NamedAttack, NamedComponent
from sparseguard.pipeline.recipe.recipe import Recipe
from sparseguard.record import (
    AttackConfig,
    Component,
    Conditions,
    ExpectedFlag,
    LabeledComponent,
    RecipeConfig,
    ScoringConfig,
    ThreatConfig,
    TrainingConfig,
)


def describe_recipe(recipe: Recipe, classes: tuple[str, ...]) -> RecipeConfig:
    """Return the resolved recipe for a data set with these classes."""
    return RecipeConfig(
        name=recipe.name,
        description=recipe.description,
        seeds=list(recipe.seeds),
        data=_component(recipe.data),
        training=TrainingConfig.model_validate(describe(recipe.training)),
        threats=[
            ThreatConfig(
                name=threat.name,
                tap=threat.tap,
                backbone=_component(threat.backbone),
                classes=list(select_classes(recipe, threat, classes)),
            )
            for threat in recipe.threats
        ],
        defenses=[_labeled(defense) for defense in recipe.defenses],
        attacks=[
            AttackConfig(**_labeled(attack).model_dump(), conditions=describe_conditions(attack))
            for attack in recipe.attacks
        ],
        class_attacks=[_labeled(attack) for attack in recipe.class_attacks],
        scoring=_scoring(recipe),
        expected_flags=[ExpectedFlag.model_validate(describe(flag)) for flag in recipe.expected_flags],
    )


def describe_conditions(attack: NamedAttack) -> Conditions:
    """Return the conditions an attack runs under."""
    conditions = attack.conditions
    return Conditions(
        queries=conditions.queries,
        control=conditions.control,
        auxiliary_fraction=conditions.auxiliary_fraction,
        known_private=conditions.known_private,
        dataset=conditions.dataset,
        path=conditions.path,
        max_images=conditions.max_images,
    )


def hyperparameters(component: NamedComponent) -> dict[str, Any]:
    """Return a component's hyperparameters as plain values."""
    return {name: value for name, value in component.describe().items() if name != "name"}


def _component(component: NamedComponent) -> Component:
    return Component(name=component.name, hyperparameters=hyperparameters(component))


def _labeled(component: NamedComponent) -> LabeledComponent:
    return LabeledComponent(label=component.label, name=component.name, hyperparameters=hyperparameters(component))


def _scoring(recipe: Recipe) -> ScoringConfig:
    return ScoringConfig.model_validate(describe(recipe.scoring))
