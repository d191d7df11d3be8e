"""What a record says of attacks on classes: the prior, what was made of each class, scores with their chance."""

from __future__ import annotations

from typing import Any, Literal

import pydantic


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class PriorFacts(_Model):
    """The generator an attack was given."""

    name: str
    kind: str
    fingerprint: str = pydantic.Field(description="SHA-256 of its description and weights")
    shape: list[int]
    num_ws: int
    w_dim: int
    trained_on: str
    images: int | None = pydantic.Field(description="how many images it was trained on, by their fingerprints")
    classes: list[str] | None = pydantic.Field(description="names of the classes it has seen; null: unknown")
    overlap: dict[str, int] | None = pydantic.Field(
        description="part -> images it was trained on; null: it has no list of what it was trained on"
    )
    knows: list[str] = pydantic.Field(default=[], description="attacked classes it has seen, as far as is known")


class ClassScore(_Model):
    """One score of the images an attack answered with, beside the same rule applied to other images.

    ``chance``: as many samples of the prior, without an attack. ``other_class``: the attack's images of another class.
    ``starts``: as many candidates, those the target is surest of without gradients. ``all_optimized``: all
    that were searched for, before selection. ``unseen``: never-seen images in place of private ones. ``foreign``:
    images of no class.
    """

    value: float | None
    reason: str | None = pydantic.Field(default=None, description="why there is no value")
    ci95: tuple[float, float] | None = pydantic.Field(default=None, description="95 % interval; see docs/metrics.md")
    n: int
    leaks: Literal["more", "less"] = pydantic.Field(
        description="whether a higher value means that more leaked, or less"
    )
    chance: float | None = None
    other_class: float | None = None
    starts: float | None = None
    all_optimized: float | None = None
    unseen: float | None = None
    foreign: float | None = None


class ClassFacts(_Model):
    """What an attack made of one class, as the target sees it: means over the images it answered with."""

    confidence: float
    steady_confidence: float = pydantic.Field(description="over random crops and mirrorings")
    start_confidence: float = pydantic.Field(description="of the images the searches started from")
    best: float = pydantic.Field(description="of the best of these images")
    best_start: float = pydantic.Field(description="of the best candidate")
    accuracy: dict[str, float] = pydantic.Field(default={}, description="evaluator -> attack accuracy @1")


class ClassAttacker(_Model):
    """One attack on classes."""

    name: str
    settings: dict[str, Any]
    knowledge: Literal["nothing", "label", "black-box", "gray-box", "white-box"]
    control: bool = pydantic.Field(description="a check of the evaluators, no attack on privacy")
    prior: PriorFacts | None
    classes: dict[str, ClassFacts]
    scores: dict[str, ClassScore]
    notes: dict[str, float]
    curves: dict[str, list[float]]


class ClassGoal(_Model):
    """Which classes were attacked, and what images of theirs were compared with."""

    classes: list[str]
    pool: int = pydantic.Field(description="private images, and as many never-seen ones, of each class")
    pairing: str = pydantic.Field(description="rule by which an image is compared with a private one")
    foreign: dict[str, float] = pydantic.Field(
        default={}, description="evaluator -> share of foreign images it puts into the attacked class it prefers"
    )
