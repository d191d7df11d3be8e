"""Searches for images by their features: choices on auxiliary_val, then every split, with a fall-back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sparseguard.attacks._descent import Descent
from sparseguard.attacks._search import WhiteBoxSearch
from sparseguard.attacks._white_box import Rule, feature_loss, feature_loss_gradient
from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import AttackContext, flatten_features, validation_images
from sparseguard.core.out_of_core import mean_and_std
from sparseguard.types import AttackInputs, AttackResult, Images

VAL = "auxiliary_val"
FEATURES, PIXELS = "features", "pixels"
"""Criteria of a trial: the loss in feature space, or the squared error in pixels."""

CHUNK = 64
"""Images whose feature losses are computed at once."""


@runtime_checkable
class FeaturePlan(Protocol):
    """A plan names the rule of its gradients."""

    @property
    def rule(self) -> Rule:
        """How gradients pass sparse layers."""
        ...


Plan = TypeVar("Plan", bound=FeaturePlan)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The answer that is nearest to the auxiliary_val images.

    Args:
        error: mean squared error there.
        depth: after which stage of the search, from 0.
        fraction: of the way from the anchor to the search's image.
    """

    error: float
    depth: int
    fraction: float


@runtime_checkable
class SearchSettings(Protocol):
    """How every search is batched and probed."""

    @property
    def probe_images(self) -> int:
        """How many auxiliary_val images plans are tried on."""
        ...

    @property
    def batch_size(self) -> int:
        """How many images are searched at once."""
        ...


class FeatureSearch(WhiteBoxSearch[Plan]):
    """Search for the images of every split; where that helps nobody on auxiliary_val, answer with the anchor.

    Args:
        settings: batch and probe sizes.
        access: to the target with its weights.
        inputs: the features of the images.
        context: the attacker's images, results of earlier attacks, seed, device.

    Attributes:
        scale: total variance of the features of the attacker's own images.
        features: of each split, ``(n, d)``.
        truth: the auxiliary_val images.
        anchors: by split, the best images known before the search; empty where there are none.
    """

    depth: int = 0
    """Stages after the first, each of which gives an answer of its own."""

    fractions: Sequence[float] = (1.0,)

    def __init__(
        self, settings: SearchSettings, access: ModelAccess, inputs: AttackInputs, context: AttackContext
    ) -> None:
        super().__init__(access.copy_model(), context.progress, context.label)
        self.probe_images, self.batch_size = settings.probe_images, settings.batch_size
        self.inputs, self.context = inputs, context
        own = access.observe(context.auxiliary.train).features.flatten(1)
        self.scale = float(mean_and_std(own)[1].square().sum()) or 1.0
        self.features = flatten_features(inputs)
        self.truth = validation_images(inputs[VAL], context)
        self.anchors: Mapping[str, Images] = {}

    @abstractmethod
    def search(self, plan: Plan, split: str, indices: Tensor, depth: int) -> list[Descent]:
        """Search for the images of a split at ``indices``; return one descent a stage, its first iterate images."""

    @abstractmethod
    def describe(self, plan: Plan, choice: Choice) -> dict[str, float]:
        """Return the figures that say which plan was chosen."""

    def blend(self, split: str, images: Images, fraction: float) -> Images:  # noqa: ARG002
        """Return the answer for the search's images; here they are the answer."""
        return images

    def anchor_on(self, candidates: Mapping[str, Mapping[str, Images]]) -> str:
        """Anchor the search on the candidate nearest to the auxiliary_val images; return its name."""
        errors = {name: mean_squared_error(images[VAL], self.truth) for name, images in candidates.items()}
        best = min(errors, key=lambda name: errors[name])
        self.anchors = candidates[best]
        self.diagnostics["start_auxiliary_val_mse"] = errors[best]
        return best

    def probe_gradients(self) -> None:
        """Record the gradients of all rules at the mean image, for some auxiliary_val images."""
        device = self.context.device
        features = self.features[VAL][: self.probe_images].to(device)
        mean = self.context.auxiliary.train.images.mean(0, keepdim=True)
        images = mean.expand(len(features), -1, -1, -1).to(device)
        self.record_gradients(
            {rule: feature_loss_gradient(model, images, features, self.scale) for rule, model in self.models.items()}
        )

    def trial(self, plan: Plan, criterion: str) -> float:
        """Search for some auxiliary_val images and return the error in pixels or the mean feature loss."""
        count = self.probe_images
        if criterion == PIXELS:
            return self.select(self.run(plan, VAL, self.depth, count)[0]).error
        stages, _ = self.run(plan, VAL, 0, count)
        return float(self.feature_losses(stages[0], self.features[VAL][:count]).mean())

    def select(self, stages: Sequence[Images]) -> Choice:
        """Return the depth and fraction whose answer is nearest to the auxiliary_val images."""
        error, depth, fraction = min(
            (mean_squared_error(self.blend(VAL, images, fraction), self.truth[: len(images)]), depth, fraction)
            for depth, images in enumerate(stages)
            for fraction in self.fractions
        )
        return Choice(error=error, depth=depth, fraction=fraction)

    def run(self, plan: Plan, split: str, depth: int, count: int | None = None) -> tuple[list[Images], list[float]]:
        """Return a split's first ``count`` images after every stage to ``depth``, and the mean loss at every step."""
        total = len(self.features[split][:count])
        stages: list[list[Images]] = [[] for _ in range(depth + 1)]
        curve = torch.zeros(1)
        with self.progress.task(f"{self.label}: {split}", total) as advance:
            for indices in torch.arange(total).split(self.batch_size):
                descents = self.search(plan, split, indices, depth)
                for images, descent in zip(stages, descents, strict=True):
                    images.append(descent.iterate[0].cpu())
                curve = curve + torch.cat([descent.losses for descent in descents]).cpu() * len(indices) / total
                advance(len(indices))
        return [torch.cat(images) for images in stages], curve.tolist()

    def result(self) -> AttackResult:
        """Choose a plan, run it on auxiliary_val and, if it comes nearer than the anchor, on every other split."""
        plan = self.plan()
        reconstructions = {split: self.anchors[split].clone() for split in self.inputs if split in self.anchors}
        stages, curve = self.run(plan, VAL, self.depth)
        curves = {f"{VAL} feature loss": curve}
        choice = self.select(stages)
        helped = not self.anchors or choice.error < self.diagnostics["start_auxiliary_val_mse"]
        if helped:
            reconstructions[VAL] = self.blend(VAL, stages[choice.depth], choice.fraction)
            for split in [split for split in self.inputs if split != VAL]:
                stages, curves[f"{split} feature loss"] = self.run(plan, split, choice.depth)
                reconstructions[split] = self.blend(split, stages[choice.depth], choice.fraction)
        self.diagnostics |= {
            **self.describe(plan, choice),
            "search_auxiliary_val_mse": choice.error,
            "searched": float(helped),
        }
        reconstructions = {split: reconstructions[split] for split in self.inputs}
        residuals = {
            split: self.feature_losses(images, self.features[split]).sqrt() for split, images in reconstructions.items()
        }
        return AttackResult(
            reconstructions=reconstructions, diagnostics=self.diagnostics, curves=curves, residuals=residuals
        )

    @torch.no_grad()
    def feature_losses(self, images: Images, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Return each image's feature loss under the released model, on the CPU."""
        model, device = self.models["unrolled"], self.context.device
        rows = zip(images.split(CHUNK), features.split(CHUNK), strict=True)
        return torch.cat(
            [feature_loss(model, chunk.to(device), wanted.to(device), self.scale).cpu() for chunk, wanted in rows]
        )


def mean_squared_error(images: Images, truth: Images) -> float:
    """Return the mean squared error over all values."""
    return float((images - truth).square().mean())
