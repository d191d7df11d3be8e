"""The resolved recipe as a record keeps it."""

from __future__ import annotations

from typing import Literal

import pydantic

from sparseguard.record._model import Component, LabeledComponent, Model


class Conditions(Model):
    """The conditions an attack runs under."""

    queries: int = pydantic.Field(default=1, description="how often each image is sent to the target")
    control: Literal["none", "shuffled-features", "untrained-target"] = "none"
    auxiliary_fraction: float = pydantic.Field(default=1.0, description="fraction of the auxiliary data it learns from")
    known_private: float = pydantic.Field(default=0.0, description="fraction of the private images it has besides")
    dataset: str | None = pydantic.Field(default=None, description="other data set its auxiliary data come from")
    path: str | None = pydantic.Field(default=None, description="where that data set lies")
    max_images: int | None = pydantic.Field(default=None, description="attacked images of each split; null: all")


class AttackConfig(LabeledComponent):
    """An attack of the recipe."""

    conditions: Conditions = Conditions()


class ThreatConfig(Model):
    """A threat of the recipe."""

    name: str
    tap: str
    backbone: Component
    classes: list[str] = pydantic.Field(default=[], description="attacked classes; empty for feature inversion")


class TrainingConfig(Model):
    """How targets are trained."""

    epochs: int = pydantic.Field(description="at most")
    batch_size: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    patience: int


class ScoringConfig(Model):
    """Which scores the recipe asks for beyond those that every run has."""

    network: str = "none"
    model: str | None = None
    weights: str | None = None
    lpips: str | None = None
    lpips_backbone: str = "alex"
    evaluators: bool = False
    neighbors: int = 1
    bounds: bool = False
    bounds_images: int = 128


class ExpectedFlag(Model):
    """A flag that the recipe's author expects, and why."""

    flag: str
    reason: str
    defense: str | None = None
    threat: str | None = None


class RecipeConfig(Model):
    """The resolved recipe: everything a case of it was run with."""

    name: str
    description: str = ""
    seeds: list[int] = pydantic.Field(default=[])
    data: Component
    training: TrainingConfig | None = pydantic.Field(default=None, description="null: no target was trained")
    threats: list[ThreatConfig] = pydantic.Field(default=[])
    defenses: list[LabeledComponent] = pydantic.Field(default=[])
    attacks: list[AttackConfig] = pydantic.Field(default=[])
    class_attacks: list[LabeledComponent] = pydantic.Field(default=[])
    scoring: ScoringConfig = ScoringConfig()
    expected_flags: list[ExpectedFlag] = pydantic.Field(default=[])
