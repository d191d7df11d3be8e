"""Scores of model inversion, whose images show a class: attack accuracy, distance to real images, diversity.

Features are those of an evaluator, ``(n, d)``; labels ``(n,)`` are the class that an image was made for or belongs to.
Distances are computed in float64 on the CPU, some hundred images at a time, so that memory grows with the number of
images and not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparseguard.core.errors import DataError
from sparseguard.core.seeding import derive
from sparseguard.numerics.distances import CHUNK, pairwise_squared_distances
from sparseguard.numerics.nearest_neighbors import (
    mean_pairwise_distance,
    nearest_distance,
    nearest_index,
    nearest_squared_distances,
    validate_features,
)
from sparseguard.stats import auc, mean_auc_interval, t_half_width

Features = Float[Tensor, "n d"]
Real = Float[Tensor, "m e"]  # of another dimension it is refused with an explanation
Labels = Int[Tensor, " n"]


def attack_accuracy(preds: Float[Tensor, "n classes"], target: Labels, k: int = 1) -> Float[Tensor, " n"]:
    """Return 1 for each image whose target class is among the ``k`` highest logits, else 0.

    Classes that tie with the target count as higher, so that a constant answer reaches nothing.

    Args:
        preds: logits of an evaluator that the attack has not used.
        target: the class that each image was made for.
        k: number of answers that count; fewer than there are classes.

    Raises:
        ValueError: when every answer would count, or there are no images.
        DataError: for logits that are not finite, which no other logit is higher than.

    Source: L. Struppek et al., ICML 2022 (attack accuracy @1 and @5).
    """
    if not 1 <= k < preds.shape[1]:
        raise ValueError(f"k must be from 1 to {preds.shape[1] - 1}, got {k}.")
    _require_images(preds)
    if not torch.isfinite(preds).all():
        raise DataError("logits must be finite; the images or the evaluator are broken.")
    reached = preds.gather(1, target.to(preds.device).unsqueeze(1))
    return ((preds >= reached).sum(1) <= k).float()


def agreement(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float:
    """Return the fraction of images on which two 0/1 judgements are the same, from 0 to 1."""
    _require_images(first)
    return float((first == second).double().mean())


def cohen_kappa(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float | None:
    r"""Return Cohen's :math:`(p_o - p_e) / (1 - p_e)` of two 0/1 judgements; None where both are constant and equal.

    1: they agree, 0: as often as by chance.

    Source: J. Cohen, "A Coefficient of Agreement for Nominal Scales", 1960.
    """
    _require_images(first)
    a, b = float(first.double().mean()), float(second.double().mean())
    expected = a * b + (1 - a) * (1 - b)
    return None if expected == 1 else (agreement(first, second) - expected) / (1 - expected)


def feature_distance(
    features: Features, labels: Labels, real: Real, real_labels: Int[Tensor, " m"], k: int = 1
) -> Float[Tensor, " n"]:
    """Return each image's mean squared distance to its ``k`` nearest real images of its class; lower: nearer.

    Raises:
        ValueError: for a ``k`` below 1, or no images.
        DataError: when a class has fewer real images than ``k``, or features are not finite or of different
            dimensions.

    Source: L. Struppek et al., ICML 2022, with k = 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    distances = torch.empty(len(features), dtype=torch.float64)
    for group in _groups(features, labels, real, real_labels):
        if len(group.real) < k:
            raise DataError(
                f"class {group.label} has {len(group.real)} real images, a mean over {k} nearest needs as many."
            )
        chunks = group.features.split(CHUNK)
        distances[group.rows] = torch.cat([nearest_squared_distances(rows, group.real, k).mean(1) for rows in chunks])
    return distances.float()


def nearest_in_class(
    features: Features, labels: Labels, real: Real, real_labels: Int[Tensor, " m"]
) -> Int[Tensor, " n"]:
    """Return the index in ``real`` of each image's nearest real image of its class; the first, if several are.

    Raises:
        ValueError: for no images.
        DataError: when a class has no real image, or features are not finite or of different dimensions.
    """
    indices = torch.empty(len(features), dtype=torch.int64)
    for group in _groups(features, labels, real, real_labels):
        if len(group.real) == 0:
            raise DataError(f"class {group.label} has no real images to compare with.")
        nearest = torch.cat([nearest_index(rows, group.real) for rows in group.features.split(CHUNK)])
        indices[group.rows] = group.real_rows[nearest]
    return indices


def balanced_indices(
    first: Labels, second: Int[Tensor, " m"], generator: torch.Generator
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Return indices into both sets, in rising order, so that each class is equally often in both.

    Of the larger side of a class as many are drawn as the smaller side has; classes missing on a side are left out.
    """
    first, second = first.cpu(), second.cpu()
    chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in torch.cat([first, second]).unique().tolist():
        sides = [(labels == label).nonzero().squeeze(1) for labels in (first, second)]
        count = min(len(side) for side in sides)
        for side, indices in zip(sides, chosen, strict=True):
            indices.append(side[torch.randperm(len(side), generator=generator)[:count]])
    empty = torch.zeros(0, dtype=torch.int64)
    first_indices, second_indices = (torch.cat([empty, *indices]).sort().values for indices in chosen)
    return first_indices, second_indices


@dataclass(frozen=True, kw_only=True)
class Auc:
    """Area under the ROC curve that separates private from unseen images.

    Args:
        value: from 0 to 1; 0.5: they cannot be separated.
        ci95: bootstrap interval over real images.
        n_private: private images.
        n_unseen: unseen images.
    """

    value: float
    ci95: tuple[float, float]
    n_private: int
    n_unseen: int


def private_auc(
    features: Features,
    labels: Labels,
    private: Real,
    private_labels: Int[Tensor, " m"],
    unseen: Float[Tensor, "u f"],
    unseen_labels: Int[Tensor, " u"],
) -> Auc:
    r"""Return how often a private image is nearer to the images made of its class than an unseen image is.

    .. math:: \mathrm{mean}_c\; P(d_p < d_u) + \tfrac12 P(d_p = d_u), \qquad d_x = \min_{i: y_i = c} \|x - m_i\|

    over pairs of a private p and an unseen u of class c; classes weigh equally, those without either are left out.
    The interval is a percentile bootstrap over the real images of each class, with 1,000 resamples. It takes classes
    and made images as fixed: it does not say how the value varies with other classes, another run of the attack or
    another target. It shrinks to a point where the value is 0 or 1, and with one image of either kind.

    Args:
        features: of the images made of classes.
        labels: the class each was made for.
        private: features of the target's training images.
        private_labels: their classes.
        unseen: features of images of the same classes that the target has not trained on.
        unseen_labels: their classes.

    Raises:
        DataError: when no class has images of all three kinds, or features are not finite or of different dimensions.

    Source: the Mann-Whitney statistic; B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.
    """
    features, private, unseen = validate_features(features, private, unseen)
    labels, private_labels, unseen_labels = labels.cpu(), private_labels.cpu(), unseen_labels.cpu()
    distances = []
    for label in labels.unique().tolist():
        made = features[labels == label]
        sides = private[private_labels == label], unseen[unseen_labels == label]
        if len(made) and len(sides[0]) and len(sides[1]):
            near, far = (nearest_distance(images, made).numpy() for images in sides)
            distances.append((near, far))
    if not distances:
        raise DataError("no class has made, private and unseen images.")
    values = torch.tensor([auc(near, far) for near, far in distances], dtype=torch.float64)
    return Auc(
        value=float(values.mean()),
        ci95=mean_auc_interval(distances, seed=derive(purpose="bootstrap of an AUC")),
        n_private=sum(len(near) for near, _ in distances),
        n_unseen=sum(len(far) for _, far in distances),
    )


def outlier_fraction(features: Features, real: Real, quantile: float = 0.95) -> float:
    """Return the fraction of images that are unusually far from the nearest real one.

    Unusual is a distance above the ``quantile`` of those of real images to their nearest other. The fraction is near
    1 - ``quantile`` for images like the real ones, near 1 for images of something else.

    Raises:
        DataError: for no images, fewer than two real ones, or features that are not finite or of different dimensions.
    """
    features, real = validate_features(features, real)
    if len(real) < 2 or len(features) == 0:
        raise DataError(f"needs images and at least two real ones, got {len(features)} and {len(real)}.")
    # the nearest of all is the image itself, at distance 0
    squares = [pairwise_squared_distances(rows, real).kthvalue(2, dim=1).values for rows in real.split(CHUNK)]
    limit = torch.quantile(torch.cat(squares).sqrt(), quantile)
    return float((nearest_distance(features, real) > limit).double().mean())


def relative_diversity(
    images: Float[Tensor, "n c h w"],
    labels: Labels,
    real: Float[Tensor, "m c h w"],
    real_labels: Int[Tensor, " m"],
) -> float:
    """Return how much images of a class differ from each other, relative to real ones: 1 as much, 0 not at all.

    The ratio of mean pairwise distances in pixels, of the class where it is least, among classes with two images of
    either kind whose real images are not all the same.

    Raises:
        ValueError: when there is no such class.
        DataError: for pixels that are not finite.
    """
    images, real = validate_features(images.flatten(1), real.flatten(1))
    labels, real_labels = labels.cpu(), real_labels.cpu()
    ratios = []
    for label in labels.unique().tolist():
        made, others = images[labels == label], real[real_labels == label]
        if len(made) > 1 and len(others) > 1 and (usual := mean_pairwise_distance(others)) > 0:
            ratios.append(mean_pairwise_distance(made) / usual)
    if not ratios:
        raise ValueError("no class has two images of either kind, and real ones that differ.")
    return min(ratios)


def class_mean_interval(values: Float[Tensor, " n"], labels: Labels) -> tuple[float, float, float]:
    """Return the mean over classes of their means, and the ends of its 95 % interval by Student's t.

    The interval is from the class means where there are at least three, since images of one class are not independent;
    else from single values, and then too narrow. Of a single value it is a point, and says nothing.

    Raises:
        ValueError: for no values.
        DataError: for a value that is not finite.
    """
    _require_images(values)
    values, labels = values.detach().cpu(), labels.cpu()
    if not torch.isfinite(values).all():
        raise DataError(f"scores must be finite, {int((~torch.isfinite(values)).sum())} are not.")
    means = torch.stack([values[labels == label].double().mean() for label in labels.unique()])
    mean = float(means.mean())
    half = t_half_width((means if len(means) >= 3 else values.double()).numpy())
    return mean, mean - half, mean + half


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Features and row numbers of a class's images, and of its real images."""

    label: int
    rows: Tensor
    features: Tensor
    real_rows: Tensor
    real: Tensor


def _groups(features: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor) -> Iterator[_Group]:
    _require_images(features)
    features, real = validate_features(features, real)
    labels, real_labels = labels.cpu(), real_labels.cpu()
    for label in labels.unique().tolist():
        rows, real_rows = ((classes == label).nonzero().squeeze(1) for classes in (labels, real_labels))
        yield _Group(label=label, rows=rows, features=features[rows], real_rows=real_rows, real=real[real_rows])


def _require_images(values: Tensor) -> None:
    if len(values) == 0:
        raise ValueError("needs at least one image.")
