"""Entries of a resolved recipe: components with the names and labels they have there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sparseguard.attacks import ClassAttack
from sparseguard.core.config import describe, settings
from sparseguard.defenses import Defense
from sparseguard.pipeline.recipe.conditions import Conditions
from sparseguard.pipeline.recipe.threats import Goal
from sparseguard.targets import Backbone
from sparseguard.types import Knowledge


@settings
class ExpectedFlag:
    """A flag that the recipe's author expects.

    Args:
        flag: name of the check.
        reason: one sentence on why it is expected.
        defense: label of the defense it is expected for; absent: all.
        threat: name of the threat it is expected for; absent: all.
    """

    flag: str
    reason: str
    defense: str | None = None
    threat: str | None = None


@dataclass(frozen=True, kw_only=True)
class NamedComponent:
    """A component, its name in its table, and its label in this recipe."""

    name: str
    label: str
    component: Any

    def describe(self) -> dict[str, Any]:
        """Return name and settings as plain values."""
        return {"name": self.name, **describe(self.component)}


@dataclass(frozen=True, kw_only=True)
class NamedDefense(NamedComponent):
    """A defense, or several combined."""

    component: Defense

    def describe(self) -> dict[str, Any]:
        """Return name and settings as plain values."""
        return {"name": self.name, **self.component.describe()}


@dataclass(frozen=True, kw_only=True)
class NamedAttack(NamedComponent):
    """A feature inversion and the conditions it runs under."""

    conditions: Conditions = field(default_factory=Conditions)

    @property
    def knowledge(self) -> Knowledge:
        """Knowledge of the attacker."""
        knowledge: Knowledge = self.component.knowledge
        return knowledge

    @property
    def eligible(self) -> bool:
        """Whether it can be chosen: floors and controls cannot."""
        return not self.component.floor and self.conditions.eligible

    @property
    def max_images(self) -> int | None:
        """Number of images of each split it attacks; None for all."""
        default: int | None = self.component.max_images
        return self.conditions.max_images if self.conditions.max_images is not None else default


@dataclass(frozen=True, kw_only=True)
class NamedClassAttack(NamedComponent):
    """A class inversion."""

    component: ClassAttack

    @property
    def knowledge(self) -> Knowledge:
        """Knowledge of the attacker."""
        return self.component.knowledge


@dataclass(frozen=True, kw_only=True)
class Threat:
    """A threat: the tap of a backbone that the attacker sees, and the goal of the attack.

    Args:
        name: its name in the table of threats.
        tap: layer whose output the attacker sees.
        backbone: the undefended model.
        goal: ``feature-inversion`` reconstructs every image, ``class-inversion`` makes images of a class.
        classes: attacked classes of a class inversion; empty: those that the recipe's priors have not seen.

    Raises:
        RecipeError: for a tap that the backbone does not have.
    """

    name: str
    tap: str
    backbone: NamedComponent
    goal: Goal = "feature-inversion"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a tap the backbone does not have."""
        model: Backbone = self.backbone.component
        model.blueprint(2).resolve_tap(self.tap)
