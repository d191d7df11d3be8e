"""The record of one case: what was run, what was measured, and which checks raised a flag.

One JSON file a case, `<case>.json`, with the model below as its schema (``docs/record.schema.json``), and beside it
`<case>.safetensors` with per-image scores and the gallery's pictures.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pydantic

from sparseguard.record.class_schema import ClassAttacker, ClassGoal, PriorFacts

SCHEMA_VERSION = 4


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Case(_Model):
    """The axes of the grid."""

    dataset: str
    backbone: str
    defense: str = pydantic.Field(description="label of the defense, its name and the settings that differ")
    threat: str = pydantic.Field(description="end-to-end, split or plug-and-play")
    tap: str
    seed: int

    @property
    def slug(self) -> str:
        """The case's file name without its ending."""
        parts = (self.dataset, self.backbone, self.defense, self.threat, self.tap, f"seed{self.seed}")
        return "__".join(part.replace(" ", "_").replace("/", "-") for part in parts)


class Summary(_Model):
    """One metric over the images of one part."""

    mean: float
    std: float = pydantic.Field(description="standard deviation over images")
    ci95: tuple[float, float] = pydantic.Field(description="normal 95 % interval of the mean over images, one seed")
    quantiles: tuple[float, float, float] = pydantic.Field(description="5 %, 50 %, 95 % over images")
    n: int


class SetScore(_Model):
    """A score of many reconstructions at once, or why there is none."""

    value: float | None
    reason: str | None = None
    n: int = pydantic.Field(description="reconstructions it was computed from")


class Attacker(_Model):
    """One attack of the case and its scores: part -> metric -> summary."""

    name: str
    settings: dict[str, Any]
    setting: dict[str, Any] = pydantic.Field(
        default={}, description="under which circumstances: repeated queries, a control, other images to learn from"
    )
    level: str = pydantic.Field(
        default="", description="the group it may be chosen from: knowledge, and how often each image is sent"
    )
    competes: bool = pydantic.Field(default=True, description="whether it may be chosen; floors and controls may not")
    index: dict[str, list[int]] = pydantic.Field(
        default={}, description="part -> places of the images it attacked, where these are not all"
    )
    curves: dict[str, list[float]] = pydantic.Field(default={}, description="learning curves, one value an epoch")
    residuals: dict[str, Summary] = pydantic.Field(
        default={},
        description="part -> distance of the reconstruction's features from what leaked, relative to their spread",
    )
    sets: dict[str, dict[str, SetScore]] = pydantic.Field(default={}, description="part -> score of the set -> value")
    knowledge: Literal["nothing", "label", "black-box", "gray-box", "white-box"]
    floor: bool = pydantic.Field(description="needs no leak: a floor every leak is compared with")
    prior: PriorFacts | None = pydantic.Field(default=None, description="the generator it was given")
    parameter_change: float | None
    outside_range: float = pydantic.Field(description="largest distance of a reconstructed value from [0, 1]")
    notes: dict[str, float]
    scores: dict[str, dict[str, Summary]]


class TargetFacts(_Model):
    """The defended model."""

    accuracy: float = pydantic.Field(description="share of test images classified right, defense active")
    accuracy_n: int
    majority_rate: float = pydantic.Field(description="share of the most frequent class in test")
    parameters: int
    epochs: int = pydantic.Field(description="epochs trained")
    best_epoch: int
    history: list[dict[str, float]] = pydantic.Field(
        default=[], description="an epoch each: train_loss, held_out_loss, held_out_accuracy"
    )
    held_out_n: int = pydantic.Field(default=0, description="private images kept for early stopping")
    wrong: dict[str, list[int]] = pydantic.Field(
        default={}, description="part -> places of the images classified wrong, defense active"
    )
    step_flops: int | None = pydantic.Field(
        default=None,
        description="floating-point operations of a training step as run: products, convolutions",
    )
    relative_cost: float | None = pydantic.Field(
        default=None, description="step_flops relative to the undefended model's"
    )
    defense: dict[str, float] = pydantic.Field(
        default={}, description="figures the defense gives of the released model, such as an epsilon"
    )
    state_hash: str
    state_hash_after: str = pydantic.Field(description="the same after all attacks; equal unless an attack wrote to it")


class Leaked(_Model):
    """The tensor that leaked."""

    shape: tuple[int, ...]
    dimension: int
    effective_rank: float = pydantic.Field(
        description="exponential of the entropy of the covariance's spectrum, on auxiliary"
    )
    noise_ratio: float = pydantic.Field(
        description="root mean square difference of two observations of the same images over the features' spread; "
        "0 for a deterministic leak"
    )
    queries: dict[str, int] = pydantic.Field(
        description="images sent through the leak: by the attack that asked most (public), to be scored (private)"
    )


class Comparison(_Model):
    """Two attackers on the same images: first minus second, image by image."""

    kind: Literal["level", "control"] = pydantic.Field(
        description="level: the attacker chosen at another level minus the one chosen at black-box; "
        "control: a control minus the attack it belongs to"
    )
    first: str
    second: str
    metric: str
    part: str
    mean: float
    ci95: tuple[float, float] = pydantic.Field(description="bootstrap 95 % interval of the mean over images")
    n: int


class Bound(_Model):
    """What holds for every attacker, or for one that knows more than any real one."""

    name: str
    meaning: str
    values: dict[str, float] = {}
    reason: str | None = pydantic.Field(default=None, description="why there are no values")
    n: int = 0


class Flag(_Model):
    """A check that raised."""

    name: str
    message: str
    expected: str | None = pydantic.Field(default=None, description="the recipe's sentence, where it expects the flag")


class Claim(_Model):
    """What the paper's table says for this dataset, attack and defense."""

    source: str
    psnr: float
    ssim: float
    fid: float
    accuracy: float


class Failure(_Model):
    """Why a case has no scores."""

    stage: str
    kind: str
    message: str


class Record(_Model):
    """One case."""

    schema_version: int = SCHEMA_VERSION
    recipe: str
    case: Case
    key: str = pydantic.Field(description="hash of everything the result depends on")
    status: Literal["ok", "failed"]
    failure: Failure | None = None
    config: dict[str, Any] = pydantic.Field(description="resolved settings of data, fit, backbone, defense, attacks")
    data: dict[str, Any] = pydantic.Field(
        description="layout, sizes, fingerprints, images that are in two parts, and which component read which part"
    )
    target: TargetFacts | None = None
    leaked: Leaked | None = None
    attackers: list[Attacker] = []
    chosen: dict[str, dict[str, str]] = pydantic.Field(
        default={}, description="level -> metric -> the attacker best on auxiliary_val"
    )
    skipped: dict[str, str] = pydantic.Field(default={}, description="attack -> why it had nothing to do here")
    comparisons: list[Comparison] = []
    bounds: list[Bound] = []
    evaluators: dict[str, float] = pydantic.Field(
        default={}, description="networks that judge reconstructions -> their own accuracy on test"
    )
    class_goal: ClassGoal | None = pydantic.Field(default=None, description="for threats to classes")
    class_attackers: list[ClassAttacker] = []
    agreement: dict[str, dict[str, float]] = pydantic.Field(
        default={}, description="class attacker -> how far the evaluators agree: share, and kappa where it is defined"
    )
    identification: dict[str, int] = pydantic.Field(default={}, description="N of id@1 by part; chance is 1/N")
    flags: list[Flag] = []
    claim: Claim | None = None
    provenance: dict[str, Any] = pydantic.Field(default={}, description="times, host, versions: never part of a key")

    def attacker(self, name: str) -> Attacker:
        """Return the attacker called ``name``."""
        return next(attacker for attacker in self.attackers if attacker.name == name)


class Pictures(_Model):
    """What the file beside a record holds."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True, frozen=True)

    gallery: dict[str, np.ndarray[Any, Any]] = pydantic.Field(
        description="(64, c, h, w) uint8: 'original' and one entry an attacker, the same private images in every case; "
        "fewer for an attacker of few images"
    )
    scores: dict[str, np.ndarray[Any, Any]] = pydantic.Field(
        description="(n,) float32 per image, named attacker/part/metric"
    )
    classes: dict[str, np.ndarray[Any, Any]] = pydantic.Field(
        default={},
        description="(k, n, c, h, w) uint8, a row a class: 'private', and for an attacker NAME its images, "
        "'NAME/starts', 'NAME/chance', and 'NAME/nearest', the private images they are compared with",
    )


def schema() -> dict[str, Any]:
    """Return the JSON schema of a record, as in ``docs/record.schema.json``."""
    return Record.model_json_schema()
