"""Scores of two sets of images from their features, in float64.

They compare distributions, not pairs: none of them says whether a reconstruction shows its own original. None ranks
how much decoders leak either, since blur alone raises a distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparseguard.core.errors import DataError
from sparseguard.core.seeding import derive
from sparseguard.numerics.distances import CHUNK, pairwise_squared_distances

Features = Float[Tensor, "n d"]
Target = Float[Tensor, "m e"]  # of another dimension it is refused with an explanation


@dataclass(frozen=True, kw_only=True)
class SetScore:
    """A score of two sets, or why there is none.

    Args:
        value: the score; None when it is not available.
        reason: why it is not available; None when it is.
        n: number of images in the smaller set.
    """

    value: float | None
    reason: str | None
    n: int

    def __post_init__(self) -> None:
        """Check that there is either a value or a reason."""
        if (self.value is None) == (self.reason is None):
            raise ValueError("a score has either a value or a reason.")


def subset(count: int, limit: int = 2048) -> Int[Tensor, " m"]:
    """Return the indices, in rising order, of the images that stand for ``count`` ones: all, or a fixed ``limit``.

    Example:
        >>> subset(3), len(subset(7000))
        (tensor([0, 1, 2]), 2048)
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(derive(purpose="set-metrics")))
    return order[:limit].sort().values


def frechet_distance(preds: Features, target: Target, minimum: int | None = None) -> SetScore:
    r"""Return :math:`|\mu_r - \mu_m|^2 + \mathrm{tr}(S_r + S_m - 2 (S_r^{1/2} S_m S_r^{1/2})^{1/2})`.

    The squared 2-Wasserstein distance of Gaussians with the sets' means and (n - 1) covariances; at least 0, lower is
    nearer. Square roots are by symmetric eigenvalues, those below 0 counted as 0. It falls with the number of images,
    so compare at equal numbers only.

    Args:
        preds: features of the reconstructions.
        target: features of the originals.
        minimum: images needed of each, by default d + 1, the fewest whose covariance can have full rank.

    Raises:
        DataError: for features that are not finite, or of different dimensions.

    Source: D. Dowson, B. Landau, "The Fréchet distance between multivariate normal distributions", 1982; M. Heusel et
    al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [2.0]])
        >>> frechet_distance(line + 3, line)
        SetScore(value=9.0, reason=None, n=3)
    """
    preds, target = _validate(preds, target)
    d = target.shape[1]
    needed = d + 1 if minimum is None else minimum
    if missing := _too_few(preds, target, max(needed, 2), "a Fréchet distance in these features"):
        return missing
    first, second = torch.cov(target.T).view(d, d), torch.cov(preds.T).view(d, d)
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    product = root @ second @ root
    mixed = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    shift = (target.mean(0) - preds.mean(0)).square().sum()
    return _score(float((shift + first.trace() + second.trace() - 2 * mixed).clamp_min(0)), preds, target)


def kernel_distance(preds: Features, target: Target) -> SetScore:
    r"""Return the squared maximum mean discrepancy under :math:`k(x, y) = (x \cdot y / d + 1)^3` (KID, not times 1000).

    :math:`\mathrm{mean}_{i \ne j} k(r_i, r_j) + \mathrm{mean}_{i \ne j} k(m_i, m_j) - 2\, \mathrm{mean}_{ij}
    k(r_i, m_j)` over whole sets instead of random subsets. Unbiased for independent sets, so it can be below 0; with
    originals and their own reconstructions the n pairs among the :math:`n^2` last terms lower it a little.

    Args:
        preds: features of the reconstructions; at least 2.
        target: features of the originals; at least 2.

    Raises:
        DataError: for features that are not finite, or of different dimensions.

    Source: M. Bińkowski et al., "Demystifying MMD GANs", ICLR 2018.
    """
    preds, target = _validate(preds, target)
    if missing := _too_few(preds, target, 2, "a kernel distance"):
        return missing
    within = sum(_kernel_sum(x, x, diagonal=False) / (len(x) * (len(x) - 1)) for x in (target, preds))
    return _score(within - 2 * _kernel_sum(target, preds, diagonal=True) / (len(target) * len(preds)), preds, target)


def prdc(preds: Features, target: Target, k: int = 5) -> dict[str, SetScore]:
    r"""Return precision, recall, density and coverage by balls that reach each point's k-th nearest of its own set.

    precision: fraction of reconstructions in a ball of any original, 0 to 1. recall: fraction of originals in a ball of
    any reconstruction, 0 to 1. density: originals' balls a reconstruction lies in, on average, divided by k; 0 and
    above, 1 for two sets of one distribution. coverage: fraction of originals with a reconstruction in their ball, 0 to
    1. Balls contain their surface. Memory grows with n, not its square.

    Args:
        preds: features of the reconstructions; more than k.
        target: features of the originals; more than k.
        k: which neighbor; 5 as in the second source.

    Raises:
        DataError: for features that are not finite, or of different dimensions.

    Source: T. Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS
    2019; M. Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020.
    """
    preds, target = _validate(preds, target)
    names = ("precision", "recall", "density", "coverage")
    if missing := _too_few(preds, target, k + 1, f"balls to the {k}th neighbor"):
        return dict.fromkeys(names, missing)
    target_radii, preds_radii = _radii(target, k), _radii(preds, k)
    hits = torch.zeros(len(preds), dtype=torch.float64)
    recalled, covered = [], []
    for rows, radius in zip(target.split(CHUNK), target_radii.split(CHUNK), strict=True):
        distances = pairwise_squared_distances(rows, preds)
        inside = distances <= radius.unsqueeze(1)
        hits += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distances <= preds_radii).any(1))
    values = (
        (hits > 0).double().mean(),
        torch.cat(recalled).double().mean(),
        hits.mean() / k,
        torch.cat(covered).double().mean(),
    )
    return {name: _score(float(value), preds, target) for name, value in zip(names, values, strict=True)}


def _validate(preds: Features, target: Target) -> tuple[Tensor, Tensor]:
    if preds.shape[1] != target.shape[1]:
        raise DataError(f"features of {preds.shape[1]} and of {target.shape[1]} dimensions cannot be compared.")
    if not (torch.isfinite(preds).all() and torch.isfinite(target).all()):
        raise DataError("features must be finite; the images or the feature network are broken.")
    return preds.detach().cpu().double(), target.detach().cpu().double()


def _too_few(preds: Tensor, target: Tensor, needed: int, what: str) -> SetScore | None:
    n = min(len(preds), len(target))
    if n >= needed:
        return None
    return SetScore(value=None, reason=f"{what} needs {needed:,} images of each kind, there are {n:,}", n=n)


def _score(value: float, preds: Tensor, target: Tensor) -> SetScore:
    return SetScore(value=value, reason=None, n=min(len(preds), len(target)))


def _kernel_sum(first: Tensor, second: Tensor, *, diagonal: bool) -> float:
    d = first.shape[1]
    total = sum(float((rows @ second.T / d + 1).pow(3).sum()) for rows in first.split(CHUNK))
    return total if diagonal else total - float((first.square().sum(1) / d + 1).pow(3).sum())


def _radii(points: Tensor, k: int) -> Tensor:
    """Return each point's squared distance to its k-th nearest other point."""
    # the nearest of all is the point itself, at distance 0
    return torch.cat(
        [pairwise_squared_distances(rows, points).kthvalue(k + 1, dim=1).values for rows in points.split(CHUNK)]
    )
