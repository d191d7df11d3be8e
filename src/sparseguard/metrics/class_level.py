"""Scores of images made of classes rather than of single images: accuracy by evaluators, nearness, diversity.

Features are those of an evaluator, ``(n, d)``; labels ``(n,)`` say which class an image was made for or belongs to.
Distances are computed in float64 on the CPU, class by class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparseguard.errors import DataError
from sparseguard.seeds import derive

Features = Float[Tensor, "n d"]
Labels = Int[Tensor, " n"]
RESAMPLES = 1000


def attack_accuracy(logits: Float[Tensor, "n classes"], wanted: Labels, k: int = 1) -> Float[Tensor, " n"]:
    """Return 1 for each image whose wanted class is among the ``k`` highest logits, else 0.

    Classes that tie with the wanted one count as higher, so that a constant answer reaches nothing.

    Args:
        logits: of an evaluator the attack has not seen.
        wanted: the class each image was made for.
        k: how many answers count; fewer than there are classes.

    Raises:
        ValueError: when every answer would count.

    Source: L. Struppek et al., ICML 2022 (attack accuracy @1 and @5).
    """
    if not 1 <= k < logits.shape[1]:
        raise ValueError(f"k must be from 1 to {logits.shape[1] - 1}, got {k}.")
    own = logits.gather(1, wanted.unsqueeze(1))
    return ((logits >= own).sum(1) <= k).float()


def agreement(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float:
    """Return the share of images on which two 0/1 judgements are the same, from 0 to 1."""
    _needs_images(first)
    return float((first == second).double().mean())


def kappa(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float | None:
    r"""Return Cohen's :math:`(p_o - p_e) / (1 - p_e)` of two 0/1 judgements; None where both are constant and equal.

    1: they agree, 0: as often as by chance.

    Source: J. Cohen, "A Coefficient of Agreement for Nominal Scales", 1960.
    """
    _needs_images(first)
    a, b = float(first.double().mean()), float(second.double().mean())
    expected = a * b + (1 - a) * (1 - b)
    return None if expected == 1 else (agreement(first, second) - expected) / (1 - expected)


def feature_distance(
    made: Features, made_labels: Labels, real: Float[Tensor, "m d"], real_labels: Int[Tensor, " m"], k: int = 1
) -> Float[Tensor, " n"]:
    """Return each image's mean squared distance to its ``k`` nearest real images of its class; lower: nearer.

    Raises:
        DataError: when a class has fewer real images than ``k``, or features are not finite.

    Source: L. Struppek et al., ICML 2022, with k = 1.
    """
    distances = torch.empty(len(made), dtype=torch.float64)
    for label, own, others in _by_class(made, made_labels, real, real_labels):
        if len(others) < k:
            raise DataError(f"class {label} has {len(others)} real images, a mean over {k} nearest needs as many.")
        rows = made_labels == label
        distances[rows] = own.square_().topk(k, largest=False).values.mean(1)
    return distances.float()


def nearest_of_class(
    made: Features, made_labels: Labels, real: Float[Tensor, "m d"], real_labels: Int[Tensor, " m"]
) -> Int[Tensor, " n"]:
    """Return the place in ``real`` of each image's nearest real image of its class; the first, if several are.

    Raises:
        DataError: when a class has no real image, or features are not finite.
    """
    places = torch.empty(len(made), dtype=torch.int64)
    for label, distances, others in _by_class(made, made_labels, real, real_labels):
        if len(others) == 0:
            raise DataError(f"class {label} has no real images to compare with.")
        places[made_labels == label] = others[distances.min(1).indices]
    return places


def equal_pools(
    first: Labels, second: Int[Tensor, " m"], generator: torch.Generator
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Return places in both sets, in rising order, so that each class is equally often in both.

    Of the larger side of a class as many are drawn as the smaller side has; classes missing on a side are left out.
    """
    chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in torch.cat([first, second]).unique().tolist():
        sides = [(labels == label).nonzero().squeeze(1) for labels in (first, second)]
        few = min(len(side) for side in sides)
        for side, into in zip(sides, chosen, strict=True):
            into.append(side[torch.randperm(len(side), generator=generator)[:few]])
    empty = torch.zeros(0, dtype=torch.int64)
    one, other = (torch.cat([empty, *into]).sort().values for into in chosen)
    return one, other


@dataclass(frozen=True, kw_only=True)
class Auc:
    """Area under the curve of telling private from never-seen images.

    Args:
        value: from 0 to 1; 0.5: they cannot be told apart.
        ci95: bootstrap interval over real images.
        n_private: private images.
        n_unseen: never-seen images.
    """

    value: float
    ci95: tuple[float, float]
    n_private: int
    n_unseen: int


def nearer_to_private(
    made: Features,
    made_labels: Labels,
    private: Float[Tensor, "m d"],
    private_labels: Int[Tensor, " m"],
    unseen: Float[Tensor, "u d"],
    unseen_labels: Int[Tensor, " u"],
) -> Auc:
    r"""Return how often a private image is nearer to the images made of its class than a never-seen image is.

    .. math:: \mathrm{mean}_c\; P(d_p < d_u) + \tfrac12 P(d_p = d_u), \qquad d_x = \min_{i: y_i = c} \|x - m_i\|

    over pairs of a private p and a never-seen u of class c; classes weigh equally, those without either are left out.
    The interval is a percentile bootstrap over the real images of each class, with 1,000 resamples.

    Raises:
        DataError: when no class has images of all three kinds.

    Source: the Mann-Whitney statistic; B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.
    """
    source = torch.Generator().manual_seed(derive(purpose="bootstrap of an AUC"))
    values, resampled, counts = [], [], [0, 0]
    for label in made_labels.unique().tolist():
        own = _checked(made[made_labels == label])
        real = [_checked(x[y == label]) for x, y in ((private, private_labels), (unseen, unseen_labels))]
        if not (len(own) and len(real[0]) and len(real[1])):
            continue
        near, far = (torch.cdist(images, own).amin(1) for images in real)
        wins = (near[:, None] < far).double() + (near[:, None] == far).double() / 2  # (private, unseen)
        values.append(wins.mean())
        weights = [_resampling(len(images), source) for images in real]
        resampled.append(((weights[0] @ wins) * weights[1]).sum(1))
        counts = [count + len(images) for count, images in zip(counts, real, strict=True)]
    if not values:
        raise DataError("no class has images made, private and never-seen ones.")
    spread = torch.stack(resampled).mean(0)
    low, high = (float(value) for value in torch.quantile(spread, torch.tensor([0.025, 0.975], dtype=torch.float64)))
    return Auc(value=float(torch.stack(values).mean()), ci95=(low, high), n_private=counts[0], n_unseen=counts[1])


def far_from(made: Features, real: Float[Tensor, "m d"], quantile: float = 0.95) -> float:
    """Return the share of images further from the nearest real one than real ones are, but for a few, from each other.

    Near 1 - ``quantile`` for images like the real ones, near 1 for images of something else.

    Raises:
        DataError: for fewer than two real images, or features that are not finite.
    """
    made, real = _checked(made), _checked(real)
    if len(real) < 2 or len(made) == 0:
        raise DataError(f"needs images and at least two real ones, got {len(made)} and {len(real)}.")
    usual = torch.cat(
        [torch.cdist(rows, real).kthvalue(2, dim=1).values for rows in real.split(512)]
    )  # the nearest is the image itself
    nearest = torch.cat([torch.cdist(rows, real).amin(1) for rows in made.split(512)])
    return float((nearest > torch.quantile(usual, quantile)).double().mean())


def collapse(
    images: Float[Tensor, "n c h w"],
    labels: Labels,
    real: Float[Tensor, "m c h w"],
    real_labels: Int[Tensor, " m"],
) -> float:
    """Return how much images of a class differ from each other, relative to real ones: 1 as much, 0 not at all.

    The ratio of mean pairwise distances in pixels, averaged over classes with two images of either kind.

    Raises:
        ValueError: when there is no such class.
    """
    ratios = []
    for label in labels.unique().tolist():
        own, others = images[labels == label].flatten(1).double(), real[real_labels == label].flatten(1).double()
        if len(own) > 1 and len(others) > 1:
            ratios.append(float(torch.pdist(own).mean() / torch.pdist(others).mean().clamp_min(1e-12)))
    if not ratios:
        raise ValueError("no class has two images of either kind.")
    return sum(ratios) / len(ratios)


def mean_interval(values: Float[Tensor, " n"], groups: Labels) -> tuple[float, float, float]:
    """Return the mean over groups of their means, and a normal 95 % interval of it.

    From the spread between groups where there are at least three, since images of one group are not independent; else
    from that of single values.

    Raises:
        ValueError: for no values.
    """
    _needs_images(values)
    means = torch.stack([values[groups == group].double().mean() for group in groups.unique()])
    mean = float(means.mean())
    spread = means if len(means) >= 3 else values.double()
    half = 1.96 * float(spread.std()) / math.sqrt(len(spread)) if len(spread) > 1 else 0.0
    return mean, mean - half, mean + half


def _resampling(count: int, generator: torch.Generator) -> Tensor:
    """Return ``(resamples, count)``: how often each place is drawn with replacement, divided by ``count``."""
    drawn = torch.randint(count, (RESAMPLES, count), generator=generator)
    return torch.zeros(RESAMPLES, count, dtype=torch.float64).scatter_add_(
        1, drawn, torch.full_like(drawn, 1, dtype=torch.float64) / count
    )


def _by_class(made: Tensor, made_labels: Tensor, real: Tensor, real_labels: Tensor) -> list[tuple[int, Tensor, Tensor]]:
    """Return, by class made, the distances ``(own, others)`` and the places of the class's real images."""
    made, real = _checked(made), _checked(real)
    found = []
    for label in made_labels.unique().tolist():
        others = (real_labels == label).nonzero().squeeze(1)
        found.append((label, torch.cdist(made[made_labels == label], real[others]), others))
    return found


def _checked(features: Tensor) -> Tensor:
    if not torch.isfinite(features).all():
        raise DataError("features must be finite; the images or the evaluator are broken.")
    return features.detach().cpu().double()


def _needs_images(values: Tensor) -> None:
    if len(values) == 0:
        raise ValueError("needs at least one image.")
