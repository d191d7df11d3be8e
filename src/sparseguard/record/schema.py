"""The record of one case: configuration, target, features at the tap, outcome of the attacks, flags.

One JSON file a case, `<case>.json`, with the model below as its schema (``docs/record.schema.json``), and beside it
`<case>.safetensors` with per-image scores and the gallery's pictures.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import numpy as np
import pydantic

from sparseguard.record._model import Component, Model
from sparseguard.record.class_inversion import ClassInversionAttack, ClassInversionOutcome
from sparseguard.record.config import RecipeConfig
from sparseguard.record.feature_inversion import Bound, Comparison, FeatureInversionAttack, FeatureInversionOutcome

SCHEMA_VERSION: Final = 5


class Case(Model):
    """The axes of the grid."""

    dataset: str
    backbone: str
    defense: str = pydantic.Field(description="label of the defense: its name and the hyperparameters that differ")
    threat: str = pydantic.Field(description="end-to-end, split or plug-and-play; in an audit the tap")
    tap: str
    seed: int

    @property
    def slug(self) -> str:
        """The case's file name without its ending."""
        axes = (self.dataset, self.backbone, self.defense, self.threat, self.tap, f"seed{self.seed}")
        return "__".join(axis.replace(" ", "_").replace("/", "-") for axis in axes)


class ThreatDescription(Model):
    """View and goal of the attacker of a threat."""

    goal: Literal["feature-inversion", "class-inversion"]
    title: str = pydantic.Field(description="name for headings")
    sentence: str


class Failure(Model):
    """Why a case has no scores."""

    stage: str = pydantic.Field(description="fit or attack")
    kind: str = pydantic.Field(description="name of the error")
    message: str


class DataReaders(Model):
    """Which splits each stage reads."""

    target: list[str] = pydantic.Field(default=[])
    defense: list[str] = pydantic.Field(default=[])
    attacks: list[str] = pydantic.Field(default=[])
    evaluators: list[str] = pydantic.Field(default=[])
    bounds: list[str] = pydantic.Field(default=[])
    accuracy: list[str] = pydantic.Field(default=[])
    scores: list[str] = pydantic.Field(default=[])


class DataFacts(Model):
    """The splits of the data set."""

    layout: str | None = pydantic.Field(default=None, description="sparseguard, paper or audit")
    sizes: dict[str, int] = pydantic.Field(default={}, description="split -> number of images")
    fingerprints: dict[str, str] = pydantic.Field(default={}, description="split -> SHA-256 of its images and labels")
    duplicates: dict[str, int] = pydantic.Field(
        default={}, description="split -> number of private images that are in it too, pixel by pixel"
    )
    gallery_indices: list[int] = pydantic.Field(default=[], description="the private images whose pictures are kept")
    reidentification_pools: dict[str, int] = pydantic.Field(
        default={}, description="split -> N of re-identification rate@1; chance is 1/N"
    )
    flips_keep_class: bool | None = pydantic.Field(
        default=None, description="whether mirror images belong to the same class"
    )
    readers: DataReaders | None = None


class TrainingCurves(Model):
    """A target's training, one value an epoch."""

    train_loss: list[float] = pydantic.Field(default=[])
    held_out_loss: list[float] = pydantic.Field(default=[])
    held_out_accuracy: list[float] = pydantic.Field(default=[])


class DefenseFacts(Model):
    """Figures a defense computes of the released model."""

    epsilon: float | None = pydantic.Field(default=None, description="of differential privacy")
    delta: float | None = pydantic.Field(default=None, description="of differential privacy")
    reconstruction_bound: float | None = pydantic.Field(
        default=None, description="largest probability of a reconstruction by an informed adversary (ReRo)"
    )
    extra: dict[str, float] = pydantic.Field(default={}, description="further figures by name")

    def figures(self) -> dict[str, float]:
        """Return all numbers that are known, by name."""
        return {**self.model_dump(exclude={"extra"}, exclude_none=True), **self.extra}


class TargetFacts(Model):
    """The defended model."""

    accuracy: float = pydantic.Field(description="fraction of test images classified right, defense active")
    accuracy_n: int = pydantic.Field(description="number of test images")
    majority_rate: float = pydantic.Field(description="fraction of the most frequent class in test")
    parameters: int
    epochs: int = pydantic.Field(description="epochs trained")
    best_epoch: int = pydantic.Field(description="epoch whose weights are used")
    history: TrainingCurves = TrainingCurves()
    held_out_n: int = pydantic.Field(default=0, description="private images held out for early stopping")
    misclassified: dict[str, list[int]] = pydantic.Field(
        default={}, description="split -> indices of the images classified wrong, defense active"
    )
    step_flops: int | None = pydantic.Field(
        default=None, description="floating-point operations of one training step: products and convolutions"
    )
    relative_cost: float | None = pydantic.Field(
        default=None, description="step_flops relative to the undefended model's"
    )
    defense: DefenseFacts = DefenseFacts()
    state_hash: str
    state_hash_after: str = pydantic.Field(description="after all attacks; equal unless an attack changed the target")


class Queries(Model):
    """Number of images sent to the target."""

    private: int = pydantic.Field(description="to be reconstructed and scored")
    auxiliary: int = pydantic.Field(description="to learn from, by the attack that sent most")


class FeatureFacts(Model):
    """The features at the tap."""

    shape: tuple[int, ...]
    dimension: int
    effective_rank: float = pydantic.Field(
        description="exponential of the entropy of the covariance's spectrum, on auxiliary"
    )
    noise_ratio: float = pydantic.Field(
        description="root mean square difference of two observations of the same images over the features' standard "
        "deviation; 0 for deterministic features"
    )
    queries: Queries


class EvaluatorFacts(Model):
    """A network that scores reconstructions and that no attack uses."""

    accuracy: float = pydantic.Field(description="fraction of test images classified right")
    shuffled_patches: float | None = pydantic.Field(
        default=None,
        description="fraction of images with shuffled patches that it assigns to the attacked class it prefers",
    )


class Flag(Model):
    """A check that raised."""

    name: str
    message: str
    expected: str | None = pydantic.Field(default=None, description="the recipe's sentence, where it expects the flag")


class Claim(Model):
    """The paper's table entry for this data set, attack and defense."""

    source: str
    psnr: float
    ssim: float
    fid: float
    accuracy: float


class Provenance(Model):
    """Times, host and versions; never in a key."""

    finished: str = ""
    seconds: dict[str, float] = pydantic.Field(default={}, description="stage -> duration")
    device: str = ""
    platform: str = ""
    threads: int | None = None
    python: str = ""
    versions: dict[str, str] = pydantic.Field(default={}, description="library -> version")
    first_sparse_layer: str | None = pydantic.Field(default=None, description="how training computed its codes")


Outcome = Annotated[FeatureInversionOutcome | ClassInversionOutcome, pydantic.Field(discriminator="kind")]


class Record(Model):
    """One case."""

    schema_version: Literal[5] = SCHEMA_VERSION
    recipe: str
    case: Case
    key: str = pydantic.Field(description="hash of everything the result depends on")
    status: Literal["ok", "failed"]
    failure: Failure | None = None
    threat: ThreatDescription
    config: RecipeConfig
    data: DataFacts = DataFacts()
    target: TargetFacts | None = None
    features: FeatureFacts | None = None
    outcome: Outcome | None = pydantic.Field(default=None, description="of the attacks; null where the case failed")
    evaluators: dict[str, EvaluatorFacts] = pydantic.Field(default={})
    flags: list[Flag] = pydantic.Field(default=[])
    claim: Claim | None = None
    provenance: Provenance = Provenance()

    @property
    def feature_inversion(self) -> FeatureInversionOutcome | None:
        """The outcome, where it is one of feature inversion."""
        return self.outcome if isinstance(self.outcome, FeatureInversionOutcome) else None

    @property
    def class_inversion(self) -> ClassInversionOutcome | None:
        """The outcome, where it is one of class inversion."""
        return self.outcome if isinstance(self.outcome, ClassInversionOutcome) else None

    @property
    def attacks(self) -> list[FeatureInversionAttack]:
        """Feature inversion attacks; empty for class inversion and failed cases."""
        return [] if self.feature_inversion is None else self.feature_inversion.attacks

    @property
    def class_attacks(self) -> list[ClassInversionAttack]:
        """Class inversion attacks; empty for feature inversion and failed cases."""
        return [] if self.class_inversion is None else self.class_inversion.attacks

    @property
    def comparisons(self) -> list[Comparison]:
        """Comparisons of feature inversion attacks; empty for class inversion and failed cases."""
        return [] if self.feature_inversion is None else self.feature_inversion.comparisons

    @property
    def bounds(self) -> list[Bound]:
        """Bounds on feature inversion; empty for class inversion and failed cases."""
        return [] if self.feature_inversion is None else self.feature_inversion.bounds

    @property
    def skipped(self) -> dict[str, str]:
        """Feature inversion attacks that do not apply, and why."""
        return {} if self.feature_inversion is None else self.feature_inversion.skipped

    @property
    def defense(self) -> Component:
        """The defense and its hyperparameters; its label alone where the recipe does not list it."""
        listed = (defense for defense in self.config.defenses if defense.label == self.case.defense)
        return next(listed, Component(name=self.case.defense))


class Pictures(Model):
    """Content of the file beside a record."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True, frozen=True)

    gallery: dict[str, np.ndarray[Any, Any]] = pydantic.Field(
        description="(64, c, h, w) uint8: 'original' and one entry an attack, the same private images in every case; "
        "fewer for an attack of few images"
    )
    scores: dict[str, np.ndarray[Any, Any]] = pydantic.Field(
        description="(n,) float32 per image, named attack/split/metric"
    )
    classes: dict[str, np.ndarray[Any, Any]] = pydantic.Field(
        default={},
        description="(k, n, c, h, w) uint8, a row a class: 'private', and for an attack NAME its images, "
        "'NAME/starts', 'NAME/chance', and 'NAME/nearest', the private images they are compared with",
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a record, as in ``docs/record.schema.json``."""
    return Record.model_json_schema()
