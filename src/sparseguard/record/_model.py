"""Base class of all models in a record, and types that several of them share."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

Knowledge = Literal["nothing", "label", "black-box", "gray-box", "white-box"]
Hyperparameters = dict[str, Any]
"""Settings of a component by name; each component has its own."""


class Model(pydantic.BaseModel):
    """A frozen model that refuses unknown fields."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class MetricDescription(Model):
    """How to print and read a metric."""

    label: str = pydantic.Field(description="name for tables, such as PSNR")
    unit: str = pydantic.Field(default="", description="of its values; empty: none")
    digits: int | None = pydantic.Field(
        default=None, description="decimal places to print; null: four significant digits"
    )
    direction: Literal["higher", "lower"] = pydantic.Field(description="which values mean that more is leaked")
    network: str | None = pydantic.Field(default=None, description="the evaluator or feature network that computes it")
    of_set: bool = pydantic.Field(default=False, description="whether it scores a whole set instead of each image")


class Component(Model):
    """A component of the tables: data set, backbone, defense or attack."""

    name: str
    hyperparameters: Hyperparameters = pydantic.Field(default={})


class LabeledComponent(Component):
    """A component and its label in the recipe."""

    label: str


class PriorFacts(Model):
    """The generator an attack used."""

    name: str
    kind: str
    fingerprint: str = pydantic.Field(description="SHA-256 of its description and weights")
    shape: list[int]
    num_ws: int
    w_dim: int
    trained_on: str
    training_images: int | None = pydantic.Field(
        default=None, description="number of images it was trained on; null: not known"
    )
    classes: list[str] | None = pydantic.Field(
        default=None, description="names of the classes it was trained on; null: not known"
    )
    overlap: dict[str, int] | None = pydantic.Field(
        default=None, description="split -> number of its images the prior was trained on; null: not known"
    )
    known_classes: list[str] = pydantic.Field(
        default=[], description="attacked classes it was trained on, as far as is known"
    )


class GradientDiagnostics(Model):
    """Figures of a search by gradients; null where the attack does not compute one."""

    gradient_norm: float | None = pydantic.Field(default=None, description="mean norm at the start of the search")
    gradient_rule: str | None = pydantic.Field(
        default=None, description="how gradients pass sparse layers: unrolled, implicit or straight-through"
    )
    gradient_cosine_implicit: float | None = pydantic.Field(
        default=None, description="mean cosine of unrolled and implicit gradients"
    )
    gradient_cosine_straight_through: float | None = pydantic.Field(
        default=None, description="mean cosine of unrolled and straight-through gradients"
    )
    extra: dict[str, float] = pydantic.Field(default={}, description="further figures by name")

    def figures(self) -> dict[str, float]:
        """Return all numbers that are known, by name."""
        fields = self.model_dump(exclude={"extra", "gradient_rule"}, exclude_none=True)
        return {**fields, **self.extra}
