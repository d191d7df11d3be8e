"""CEM, conditional entropy maximization: features kept close to centroids of their class, under noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import Blueprint, Noise, StagedModel
from sparseguard.defenses.base import Defense, State
from sparseguard.types import BatchContext, EpochContext

ITERATIONS = 60
BATCH = 512
SMALL = 1e-6


@settings
class ConditionalEntropyMaximization(Defense):
    r"""Bound the features, add noise to them, and pull them towards a few centroids of their class.

    .. math:: \tilde z = z + \epsilon, \quad z = \mathrm{sigmoid}(h(x)), \quad \epsilon \sim N(0, \sigma^2)

    .. math:: L = \mathrm{CE} + \lambda \, \mathrm{mean}_c \sum_k w_{ck} \, \mathrm{mean}_d
        \log(\mathrm{Var}_{ck,d} + \sigma^2 + 10^{-6})

    Var is the mean squared distance, by dimension d, of the batch's features of class c to their nearest centroid k,
    and w the fraction of the class's images that are nearest to it; clusters and classes without images in the batch
    do not count. Up to a factor and constants, the term is an upper bound on the information of the noisy features
    about the image beyond its class and cluster; a small term means a high entropy of the image given the features.
    Before each epoch, k-means on each class's features finds the centroids. The penalty acts from the first epoch on;
    the noise acts in training and afterwards, anew at every query.

    Args:
        sigma: standard deviation of the noise, in units of the bounded features, which lie in [0, 1]; authors 0.01 to
            0.15.
        lambd: weight of the penalty; authors 8 and 16.
        clusters: centroids a class; a class with fewer images has as many as it has images.

    Source: Xia et al. (CVPR 2025), "Theoretical Insights in Model Inversion Robustness and Conditional Entropy
    Maximization for Collaborative Inference Systems", and the authors' code.

    Differs: a smaller lambda, since here the features are those of a small dense network trained for few epochs. The
    authors' code has 10 centroids a class (batches of 128), refits them after each epoch and leaves the penalty out of
    the first one; here it acts from the start, as the weights of the epoch with the lowest held-out loss are kept, and
    they must not come from an epoch without penalty. No bottleneck of 8 channels is added. Where the tap is the raw
    output of a dense layer, the backbone's nonlinearity follows the noise.

    Limits: repeated queries average the noise away. The penalty is a batch estimate with a Gaussian for each cluster;
    it bounds no attack on single images, and holds for new images only as far as their features cluster too. The
    features still reveal the class.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "sigmoid and noise at the tap, features pulled to centroids of their class"
    source: ClassVar[str] = "Xia et al., CVPR 2025 (CEM)"
    acts_at_tap: ClassVar[bool] = True
    randomizes: ClassVar[bool] = True
    sigma: Annotated[float, Field(gt=0)] = 0.025
    lambd: Annotated[float, Field(ge=0)] = 0.2
    clusters: Annotated[int, Field(ge=1)] = 3

    def find_unaccounted_access(self) -> str:
        """Return that centroids and penalty use private images."""
        return "its centroids are means of private images' features, and its penalty couples the images of a batch"

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Insert the sigmoid and the noise after the tap."""
        bounded = blueprint.insert_after_tap("bounded", lambda _: nn.Sigmoid())
        return bounded.insert_after_tap("released", lambda _: Noise("gaussian", self.sigma))

    @torch.no_grad()
    def on_epoch_start(self, context: EpochContext) -> State:
        """Compute the centroids ``(classes, clusters, d)`` of the features, and their number for each class."""
        model, labels = cast(StagedModel, context.model), context.images.labels
        centroids: list[Tensor] = []
        for label in range(len(context.images.classes)):
            indices = (labels == label).nonzero().flatten()
            seed = derive(purpose="centroids", seed=context.seed, label=label)
            start = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))[: self.clusters]
            batches = [context.images.batch(index).to(context.device) for index in indices.split(BATCH)]
            features = torch.cat([model.forward_to(batch, "bounded").flatten(1) for batch in batches])
            centroids.append(k_means(features, features[start.to(context.device)]))
        missing = [self.clusters - len(rows) for rows in centroids]
        return {
            "centroids": torch.stack([F.pad(c, (0, 0, 0, gap)) for c, gap in zip(centroids, missing, strict=True)]),
            "counts": torch.tensor([len(rows) for rows in centroids], device=context.device),
        }

    def penalty(self, batch: BatchContext) -> Tensor:
        """Return the weighted log variance of the batch's own features around their centroids."""
        features, labels = batch.outputs["bounded"][batch.own].flatten(1), batch.labels[batch.own]
        variance = mean_log_variance(features, labels, batch.state["centroids"], batch.state["counts"], self.sigma)
        return self.lambd * variance

    @torch.no_grad()
    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Measure the noise between the two stages."""
        if not {"bounded", "released"} <= set(model.stages):
            return "the model has no bounded features with noise"
        outputs = model.outputs(images)
        noise = float((outputs["released"] - outputs["bounded"]).std())
        return f"the noise is {noise:.2g} instead of {self.sigma:g}" if noise < self.sigma / 2 else None

    @torch.no_grad()
    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return the standard deviation of the features over images, in units of the noise's."""
        features = model.forward_to(images, "bounded").flatten(1)
        return {"spread_to_noise": float(features.std(0, correction=0).mean()) / self.sigma}


def k_means(points: Tensor, start: Tensor) -> Tensor:
    """Return the centroids ``(k, d)`` that Lloyd's iterations reach from ``start``; an empty cluster's stays."""
    centroids, nearest = start, torch.full((len(points),), -1, device=points.device)
    for _ in range(ITERATIONS):
        before, nearest = nearest, _find_nearest(points, centroids) if len(start) else nearest
        if torch.equal(before, nearest):
            break
        member = F.one_hot(nearest, len(start)).to(points.dtype)
        sizes = member.sum(0).unsqueeze(1)
        centroids = torch.where(sizes > 0, member.T @ points / sizes.clamp_min(1), centroids)
    return centroids


def mean_log_variance(features: Tensor, labels: Tensor, centroids: Tensor, counts: Tensor, sigma: float) -> Tensor:
    """Return the mean over classes of the log variance around centroids, see `ConditionalEntropyMaximization`.

    Args:
        features: ``(n, d)``.
        labels: ``(n,)``.
        centroids: ``(classes, clusters, d)``.
        counts: ``(classes,)``, number of centroids of each class; the others are padding.
        sigma: of the noise.
    """
    classes, clusters, _ = centroids.shape
    flat = centroids.flatten(0, 1)
    position = torch.arange(clusters, device=labels.device)
    valid = (position < counts.unsqueeze(1)).flatten()
    cluster_class = torch.arange(classes, device=labels.device).repeat_interleave(clusters)
    own = (cluster_class == labels.unsqueeze(1)) & valid
    nearest = _find_nearest(features.detach(), flat, own)
    member = (F.one_hot(nearest, classes * clusters) * own).to(features.dtype)
    sizes = member.sum(0)
    variance = member.T @ (features - flat[nearest]) ** 2 / sizes.clamp_min(1).unsqueeze(1)
    entropy = (variance + sigma**2 + SMALL).log().mean(1)
    class_sizes = sizes.view(classes, clusters).sum(1)
    fractions = sizes.view(classes, clusters) / class_sizes.clamp_min(1).unsqueeze(1)
    return (fractions * entropy.view(classes, clusters)).sum() / (class_sizes > 0).sum().clamp_min(1)


def _find_nearest(points: Tensor, centroids: Tensor, allowed: Tensor | None = None) -> Tensor:
    distances = torch.cdist(points, centroids)
    return (distances if allowed is None else distances.masked_fill(~allowed, torch.inf)).argmin(1)
