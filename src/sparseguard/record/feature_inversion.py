"""Outcome of feature inversion: the attacks, their scores, the choice of the strongest, comparisons, bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pydantic

from sparseguard.record._model import (
    GradientDiagnostics,
    Hyperparameters,
    Knowledge,
    MetricDescription,
    Model,
    PriorFacts,
)
from sparseguard.record.config import Conditions


class Summary(Model):
    """One metric over the images of one split."""

    mean: float
    std: float = pydantic.Field(description="standard deviation over images")
    ci95: tuple[float, float] = pydantic.Field(description="normal 95 % interval of the mean over images, one seed")
    quantiles: tuple[float, float, float] = pydantic.Field(description="5 %, 50 %, 95 % over images")
    n: int


class SetScore(Model):
    """A score of many reconstructions at once, or why there is none."""

    value: float | None = None
    reason: str | None = None
    n: int = pydantic.Field(description="number of reconstructions")


class FeatureInversionDiagnostics(GradientDiagnostics):
    """Figures of an attack's training or search; null where the attack does not compute one."""

    penalty: float | None = pydantic.Field(default=None, description="chosen weight of the penalty")
    epochs: int | None = pydantic.Field(default=None, description="epochs trained")
    best_epoch: int | None = pydantic.Field(default=None, description="epoch whose weights are used")
    auxiliary_val_mse: float | None = None
    auxiliary_val_psnr: float | None = pydantic.Field(default=None, description="dB")


class Curves(Model):
    """Learning curves; each starts with the value before the first epoch or step."""

    auxiliary_val_psnr: list[float] = pydantic.Field(default=[], description="dB, before training and after each epoch")
    feature_loss: dict[str, list[float]] = pydantic.Field(
        default={}, description="split -> mean squared distance of features, relative to their variance, by step"
    )
    extra: dict[str, list[float]] = pydantic.Field(default={}, description="further curves by name")


class FeatureInversionAttack(Model):
    """One attack, floor or control, and its scores."""

    name: str = pydantic.Field(description="label in the recipe")
    attack: str = pydantic.Field(description="name of the component")
    hyperparameters: Hyperparameters = pydantic.Field(default={})
    knowledge: Knowledge
    queries: int = pydantic.Field(description="how often each image is sent to the target")
    conditions: Conditions = Conditions()
    floor: bool = pydantic.Field(description="whether it uses no inversion: a trivial baseline")
    eligible: bool = pydantic.Field(description="whether it may be chosen; floors and controls may not")
    prior: PriorFacts | None = pydantic.Field(default=None, description="the generator it used")
    indices: dict[str, list[int]] = pydantic.Field(
        default={}, description="split -> indices of the attacked images, where these are not all"
    )
    parameter_change: float | None = pydantic.Field(
        default=None, description="how far its parameters moved, relative to their size; null: it has none"
    )
    outside_range: float = pydantic.Field(description="largest distance of a reconstructed value from [0, 1]")
    diagnostics: FeatureInversionDiagnostics = FeatureInversionDiagnostics()
    curves: Curves = Curves()
    residuals: dict[str, Summary] = pydantic.Field(
        default={},
        description="split -> distance of the reconstruction's features from the observed ones, relative to their "
        "standard deviation",
    )
    set_scores: dict[str, dict[str, SetScore]] = pydantic.Field(default={}, description="split -> metric -> score")
    scores: dict[str, dict[str, Summary]] = pydantic.Field(description="split -> metric -> summary over images")

    @property
    def control(self) -> bool:
        """Whether the attack is run to be compared with another one."""
        return not self.eligible and not self.floor


class Choice(Model):
    """The attack with the best mean on auxiliary_val among those with the same knowledge and number of queries."""

    knowledge: Knowledge
    queries: int
    metric: str
    attack: str


class Comparison(Model):
    """Two attacks on the same images: first minus second, image by image."""

    kind: Literal["knowledge", "control"] = pydantic.Field(
        description="knowledge: the attack chosen with more knowledge or queries minus the one chosen at black-box; "
        "control: a control minus the attack it belongs to"
    )
    first: str
    second: str
    metric: str
    split: str
    mean: float
    ci95: tuple[float, float] = pydantic.Field(description="bootstrap 95 % interval of the mean over images")
    n: int


class LayerBound(Model):
    """How well images can be reconstructed from one layer of the target, in dB."""

    layer: str
    psnr: float
    corrected_psnr: float = pydantic.Field(description="the largest PSNR at this or a later layer")
    rise: float | None = pydantic.Field(
        default=None, description="by how much it is above the layer before; then the attacks before it are too weak"
    )


class Bound(Model):
    """A bound on reconstruction, or an attack that knows more than any real one."""

    name: str
    layer: str = pydantic.Field(default="", description="the layer it is about")
    meaning: str
    values: dict[str, float] = pydantic.Field(default={})
    layers: list[LayerBound] = pydantic.Field(default=[], description="layer-wise reconstruction, from image to tap")
    reason: str | None = pydantic.Field(default=None, description="why there are no values")
    n: int = pydantic.Field(default=0, description="number of images the values are means over")


class FeatureInversionOutcome(Model):
    """Feature inversion: attacks that reconstruct each image from its features at the tap."""

    kind: Literal["feature-inversion"]
    metrics: dict[str, MetricDescription] = pydantic.Field(description="every metric of this outcome")
    attacks: list[FeatureInversionAttack]
    chosen: list[Choice] = pydantic.Field(default=[], description="the strongest attacks")
    skipped: dict[str, str] = pydantic.Field(default={}, description="attack -> why it does not apply")
    comparisons: list[Comparison] = pydantic.Field(default=[])
    bounds: list[Bound] = pydantic.Field(default=[])

    def attack(self, name: str) -> FeatureInversionAttack:
        """Return the attack called ``name``.

        Raises:
            KeyError: when there is none.
        """
        return self._by_name()[name]

    def choice(self, knowledge: str, queries: int, metric: str) -> FeatureInversionAttack | None:
        """Return the attack chosen for a metric with this knowledge and number of queries; None where none is."""
        wanted = (knowledge, queries, metric)
        names = (one.attack for one in self.chosen if (one.knowledge, one.queries, one.metric) == wanted)
        return self._by_name().get(next(names, ""))

    def _by_name(self) -> Mapping[str, FeatureInversionAttack]:
        return {attack.name: attack for attack in self.attacks}
