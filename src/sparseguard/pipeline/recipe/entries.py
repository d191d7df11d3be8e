"""What the entries of a recipe become: pieces with the names and labels they have there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sparseguard.attacks import ClassAttack
from sparseguard.core.config import describe, settings
from sparseguard.defenses import Defense
from sparseguard.pipeline.recipe.conditions import Setting
from sparseguard.targets import Backbone
from sparseguard.types import Knowledge


@settings
class ExpectedFlag:
    """A flag the recipe's author knows of.

    Args:
        flag: the check's name.
        reason: one sentence why it is to be expected.
        defense: label of the defense it is expected for; absent: for all.
        threat: likewise.
    """

    flag: str
    reason: str
    defense: str | None = None
    threat: str | None = None


@dataclass(frozen=True, kw_only=True)
class Named:
    """A piece, the name it has in its table, and the label it has in this recipe."""

    name: str
    label: str
    piece: Any

    def describe(self) -> dict[str, Any]:
        """Return name and settings as plain values."""
        return {"name": self.name, **describe(self.piece)}


@dataclass(frozen=True, kw_only=True)
class NamedDefense(Named):
    """A defense, or several combined."""

    piece: Defense

    def describe(self) -> dict[str, Any]:
        """Return name and settings as plain values."""
        return {"name": self.name, **self.piece.describe()}


@dataclass(frozen=True, kw_only=True)
class NamedAttack(Named):
    """An attack and the circumstances it is run under."""

    setting: Setting = field(default_factory=Setting)

    @property
    def knowledge(self) -> Knowledge:
        """What the attack is given."""
        level: Knowledge = self.piece.knowledge
        return level

    @property
    def level(self) -> str:
        """Name of the group of attackers one is chosen from: knowledge, and how often each image is sent."""
        times = f" ×{self.setting.repeats}" if self.setting.repeats > 1 else ""  # noqa: RUF001
        return f"{self.knowledge}{times}"

    @property
    def competes(self) -> bool:
        """Whether it may be chosen: floors and controls may not."""
        return not self.piece.floor and self.setting.competes

    @property
    def limit(self) -> int | None:
        """How many images of each part it attacks; None for all."""
        own: int | None = self.piece.images
        return self.setting.images if self.setting.images is not None else own


@dataclass(frozen=True, kw_only=True)
class NamedClassAttack(Named):
    """An attack on classes."""

    piece: ClassAttack

    @property
    def knowledge(self) -> Knowledge:
        """What the attack is given."""
        return self.piece.knowledge


@dataclass(frozen=True, kw_only=True)
class Threat:
    """One setting of the attack: which tap of which backbone leaks, and whether images or classes are attacked.

    Args:
        name: its name in the table of threats.
        tap: what leaks.
        backbone: the undefended model.
        goal: ``instances``: every image is to be reconstructed; ``classes``: images of a class are to be made.
        classes: which are attacked, for the goal ``classes``; empty: those the priors of the recipe do not know.
    """

    name: str
    tap: str
    backbone: Named
    goal: Literal["instances", "classes"] = "instances"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a tap the backbone does not have."""
        model: Backbone = self.backbone.piece
        model.blueprint(2).resolve_tap(self.tap)
