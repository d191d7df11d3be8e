"""Scores of images made of classes rather than of single images: accuracy by evaluators, nearness, diversity.

Features are those of an evaluator, ``(n, d)``; labels ``(n,)`` say which class an image was made for or belongs to.
Distances are computed in float64 on the CPU, some hundred images at a time, so that memory grows with the number of
images and not with its square.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparseguard.core.errors import DataError
from sparseguard.core.seeding import derive
from sparseguard.metrics.distribution import CHUNK, squared_distances
from sparseguard.numerics.nearest_neighbors import checked, first_nearest, mean_spread, nearest_squares, to_nearest
from sparseguard.stats.bootstrap import student_quantile

Features = Float[Tensor, "n d"]
Real = Float[Tensor, "m e"]  # of another dimension it is refused with an explanation
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
        ValueError: when every answer would count, or there are no images.
        DataError: for logits that are not finite, which no other logit is higher than.

    Source: L. Struppek et al., ICML 2022 (attack accuracy @1 and @5).
    """
    if not 1 <= k < logits.shape[1]:
        raise ValueError(f"k must be from 1 to {logits.shape[1] - 1}, got {k}.")
    _needs_images(logits)
    if not torch.isfinite(logits).all():
        raise DataError("logits must be finite; the images or the evaluator are broken.")
    own = logits.gather(1, wanted.to(logits.device).unsqueeze(1))
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
    made: Features, made_labels: Labels, real: Real, real_labels: Int[Tensor, " m"], k: int = 1
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
    distances = torch.empty(len(made), dtype=torch.float64)
    for label, rows, own, _, others in _by_class(made, made_labels, real, real_labels):
        if len(others) < k:
            raise DataError(f"class {label} has {len(others)} real images, a mean over {k} nearest needs as many.")
        distances[rows] = torch.cat([nearest_squares(part, others, k).mean(1) for part in own.split(CHUNK)])
    return distances.float()


def nearest_of_class(
    made: Features, made_labels: Labels, real: Real, real_labels: Int[Tensor, " m"]
) -> Int[Tensor, " n"]:
    """Return the place in ``real`` of each image's nearest real image of its class; the first, if several are.

    Raises:
        ValueError: for no images.
        DataError: when a class has no real image, or features are not finite or of different dimensions.
    """
    places = torch.empty(len(made), dtype=torch.int64)
    for label, rows, own, at, others in _by_class(made, made_labels, real, real_labels):
        if len(others) == 0:
            raise DataError(f"class {label} has no real images to compare with.")
        places[rows] = at[torch.cat([first_nearest(part, others) for part in own.split(CHUNK)])]
    return places


def equal_pools(
    first: Labels, second: Int[Tensor, " m"], generator: torch.Generator
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Return places in both sets, in rising order, so that each class is equally often in both.

    Of the larger side of a class as many are drawn as the smaller side has; classes missing on a side are left out.
    """
    first, second = first.cpu(), second.cpu()
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
    private: Real,
    private_labels: Int[Tensor, " m"],
    unseen: Float[Tensor, "u f"],
    unseen_labels: Int[Tensor, " u"],
) -> Auc:
    r"""Return how often a private image is nearer to the images made of its class than a never-seen image is.

    .. math:: \mathrm{mean}_c\; P(d_p < d_u) + \tfrac12 P(d_p = d_u), \qquad d_x = \min_{i: y_i = c} \|x - m_i\|

    over pairs of a private p and a never-seen u of class c; classes weigh equally, those without either are left out.
    The interval is a percentile bootstrap over the real images of each class, with 1,000 resamples. Classes and made
    images are taken as given: it does not say how the value varies with other classes, another run of the attack or
    another target. It shrinks to a point where the value is 0 or 1, and with one image of either kind.

    Raises:
        DataError: when no class has images of all three kinds, or features are not finite or of different dimensions.

    Source: the Mann-Whitney statistic; B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.
    """
    made, private, unseen = checked(made, private, unseen)
    made_labels, private_labels, unseen_labels = made_labels.cpu(), private_labels.cpu(), unseen_labels.cpu()
    source = torch.Generator().manual_seed(derive(purpose="bootstrap of an AUC"))
    values, resampled, counts = [], [], [0, 0]
    for label in made_labels.unique().tolist():
        own, real = made[made_labels == label], (private[private_labels == label], unseen[unseen_labels == label])
        if not (len(own) and len(real[0]) and len(real[1])):
            continue
        near, far = (to_nearest(images, own) for images in real)
        values.append(_win_share(near, far, torch.ones(1, len(near)), torch.ones(1, len(far))))
        resampled.append(_win_share(near, far, _draws(len(near), source), _draws(len(far), source)))
        counts = [count + len(images) for count, images in zip(counts, real, strict=True)]
    if not values:
        raise DataError("no class has images made, private and never-seen ones.")
    spread = torch.stack(resampled).mean(0)
    low, high = (float(value) for value in torch.quantile(spread, torch.tensor([0.025, 0.975], dtype=torch.float64)))
    return Auc(value=float(torch.stack(values).mean()), ci95=(low, high), n_private=counts[0], n_unseen=counts[1])


def far_from(made: Features, real: Real, quantile: float = 0.95) -> float:
    """Return the share of images further from the nearest real one than real ones are, but for a few, from each other.

    Near 1 - ``quantile`` for images like the real ones, near 1 for images of something else.

    Raises:
        DataError: for no images, fewer than two real ones, or features that are not finite or of different dimensions.
    """
    made, real = checked(made, real)
    if len(real) < 2 or len(made) == 0:
        raise DataError(f"needs images and at least two real ones, got {len(made)} and {len(real)}.")
    # the nearest of all is the image itself, at distance 0
    usual = torch.cat([squared_distances(rows, real).kthvalue(2, dim=1).values for rows in real.split(CHUNK)]).sqrt()
    return float((to_nearest(made, real) > torch.quantile(usual, quantile)).double().mean())


def collapse(
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
    images, real = checked(images.flatten(1), real.flatten(1))
    labels, real_labels = labels.cpu(), real_labels.cpu()
    ratios = []
    for label in labels.unique().tolist():
        own, others = images[labels == label], real[real_labels == label]
        if len(own) > 1 and len(others) > 1 and (usual := mean_spread(others)) > 0:
            ratios.append(mean_spread(own) / usual)
    if not ratios:
        raise ValueError("no class has two images of either kind, and real ones that differ.")
    return min(ratios)


def mean_interval(values: Float[Tensor, " n"], groups: Labels) -> tuple[float, float, float]:
    """Return the mean over groups of their means, and a 95 % interval of it by Student's t.

    From the spread between groups where there are at least three, since images of one group are not independent; else
    from that of single values, which is then too narrow. Of a single value it is a point, and says nothing.

    Raises:
        ValueError: for no values.
        DataError: for a value that is not finite.
    """
    _needs_images(values)
    values, groups = values.detach().cpu(), groups.cpu()
    if not torch.isfinite(values).all():
        raise DataError(f"scores must be finite, {int((~torch.isfinite(values)).sum())} are not.")
    means = torch.stack([values[groups == group].double().mean() for group in groups.unique()])
    mean = float(means.mean())
    spread = means if len(means) >= 3 else values.double()
    n = len(spread)
    half = student_quantile(0.95, n - 1) * float(spread.std()) / math.sqrt(n) if n > 1 else 0.0
    return mean, mean - half, mean + half


def _draws(count: int, generator: torch.Generator) -> Tensor:
    """Return ``(resamples, count)``: how often each place is drawn, of ``count`` draws with replacement."""
    drawn = torch.randint(count, (RESAMPLES, count), generator=generator)
    return torch.zeros(RESAMPLES, count).scatter_add_(1, drawn, torch.ones(1).expand_as(drawn))


def _win_share(near: Tensor, far: Tensor, times_near: Tensor, times_far: Tensor) -> Tensor:
    """Return ``(r,)``: the share of pairs with near < far, ties half, images counted as ``times`` ``(r, n)`` say."""
    order = far.argsort()
    up_to = torch.nn.functional.pad(times_far[:, order].double().cumsum(1), (1, 0))
    below, through = (up_to[:, torch.searchsorted(far[order], near, right=right)] for right in (False, True))
    wins = len(far) - (below + through) / 2
    return (times_near * wins).sum(1) / (len(near) * len(far))


def _by_class(
    made: Tensor, made_labels: Tensor, real: Tensor, real_labels: Tensor
) -> Iterator[tuple[int, Tensor, Tensor, Tensor, Tensor]]:
    """Yield, by class made, where its images are and their features, and the same of the class's real images."""
    _needs_images(made)
    made, real = checked(made, real)
    made_labels, real_labels = made_labels.cpu(), real_labels.cpu()
    for label in made_labels.unique().tolist():
        rows, at = ((labels == label).nonzero().squeeze(1) for labels in (made_labels, real_labels))
        yield label, rows, made[rows], at, real[at]


def _needs_images(values: Tensor) -> None:
    if len(values) == 0:
        raise ValueError("needs at least one image.")
