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

Real = Float[Tensor, "n d"]
Made = Float[Tensor, "m e"]  # of another dimension it is refused with an explanation
CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class SetScore:
    """A score of two sets, or why there is none.

    Args:
        value: the score; None when it is not available.
        reason: why it is not available; None when it is.
        n: how many images the smaller set holds.
    """

    value: float | None
    reason: str | None
    n: int

    def __post_init__(self) -> None:
        """Check that there is either a value or a reason."""
        if (self.value is None) == (self.reason is None):
            raise ValueError("a score has either a value or a reason.")


def subset(count: int, limit: int = 2048) -> Int[Tensor, " m"]:
    """Return the places, in rising order, of the images that stand for ``count`` ones: all, or a fixed ``limit``.

    Example:
        >>> subset(3), len(subset(7000))
        (tensor([0, 1, 2]), 2048)
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(derive(purpose="set-metrics")))
    return order[:limit].sort().values


def frechet_distance(real: Real, made: Made, minimum: int | None = None) -> SetScore:
    r"""Return :math:`|\mu_r - \mu_m|^2 + \mathrm{tr}(S_r + S_m - 2 (S_r^{1/2} S_m S_r^{1/2})^{1/2})`.

    The squared 2-Wasserstein distance of Gaussians with the sets' means and (n - 1) covariances; at least 0, lower is
    nearer. Square roots are by symmetric eigenvalues, those below 0 counted as 0. It falls with the number of images,
    so compare at equal numbers only.

    Args:
        real: features of the originals.
        made: features of the reconstructions.
        minimum: images needed of each, by default d + 1, the fewest whose covariance can have full rank.

    Raises:
        DataError: for features that are not finite, or of different dimensions.

    Source: D. Dowson, B. Landau, "The Fréchet distance between multivariate normal distributions", 1982; M. Heusel et
    al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [2.0]])
        >>> frechet_distance(line, line + 3)
        SetScore(value=9.0, reason=None, n=3)
    """
    real, made = _checked(real, made)
    d = real.shape[1]
    needed = d + 1 if minimum is None else minimum
    if missing := _too_few(real, made, max(needed, 2), "a Fréchet distance in these features"):
        return missing
    first, second = torch.cov(real.T).view(d, d), torch.cov(made.T).view(d, d)
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    product = root @ second @ root
    mixed = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    shift = (real.mean(0) - made.mean(0)).square().sum()
    return _score(float((shift + first.trace() + second.trace() - 2 * mixed).clamp_min(0)), real, made)


def kernel_distance(real: Real, made: Made) -> SetScore:
    r"""Return the squared maximum mean discrepancy under :math:`k(x, y) = (x \cdot y / d + 1)^3` (KID, not times 1000).

    :math:`\mathrm{mean}_{i \ne j} k(r_i, r_j) + \mathrm{mean}_{i \ne j} k(m_i, m_j) - 2\, \mathrm{mean}_{ij}
    k(r_i, m_j)` over whole sets instead of random subsets. Unbiased for independent sets, so it can be below 0; with
    originals and their own reconstructions the n pairs among the :math:`n^2` last terms lower it a little.

    Args:
        real: features of the originals; at least 2.
        made: features of the reconstructions; at least 2.

    Raises:
        DataError: for features that are not finite, or of different dimensions.

    Source: M. Bińkowski et al., "Demystifying MMD GANs", ICLR 2018.
    """
    real, made = _checked(real, made)
    if missing := _too_few(real, made, 2, "a kernel distance"):
        return missing
    within = sum(_kernel_sum(x, x, diagonal=False) / (len(x) * (len(x) - 1)) for x in (real, made))
    return _score(within - 2 * _kernel_sum(real, made, diagonal=True) / (len(real) * len(made)), real, made)


def prdc(real: Real, made: Made, k: int = 5) -> dict[str, SetScore]:
    r"""Return precision, recall, density and coverage by balls that reach each point's k-th nearest of its own set.

    precision: share of reconstructions in a ball of any original, 0 to 1. recall: share of originals in a ball of any
    reconstruction, 0 to 1. density: originals' balls a reconstruction lies in, on average, divided by k; 0 and above,
    1 for two sets of one distribution. coverage: share of originals with a reconstruction in their ball, 0 to 1. Balls
    contain their surface. Memory grows with n, not its square.

    Args:
        real: features of the originals; more than k.
        made: features of the reconstructions; more than k.
        k: which neighbour; 5 as in the second source.

    Raises:
        DataError: for features that are not finite, or of different dimensions.

    Source: T. Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS
    2019; M. Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020.
    """
    real, made = _checked(real, made)
    names = ("precision", "recall", "density", "coverage")
    if missing := _too_few(real, made, k + 1, f"balls to the {k}th neighbour"):
        return dict.fromkeys(names, missing)
    around_real, around_made = _radii(real, k), _radii(made, k)
    hits = torch.zeros(len(made), dtype=torch.float64)
    recalled, covered = [], []
    for rows, radius in zip(real.split(CHUNK), around_real.split(CHUNK), strict=True):
        distances = squared_distances(rows, made)
        inside = distances <= radius.unsqueeze(1)
        hits += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distances <= around_made).any(1))
    values = (
        (hits > 0).double().mean(),
        torch.cat(recalled).double().mean(),
        hits.mean() / k,
        torch.cat(covered).double().mean(),
    )
    return {name: _score(float(value), real, made) for name, value in zip(names, values, strict=True)}


def _checked(real: Real, made: Made) -> tuple[Tensor, Tensor]:
    if real.shape[1] != made.shape[1]:
        raise DataError(f"features of {real.shape[1]} and of {made.shape[1]} dimensions cannot be compared.")
    if not (torch.isfinite(real).all() and torch.isfinite(made).all()):
        raise DataError("features must be finite; the images or the feature network are broken.")
    return real.detach().cpu().double(), made.detach().cpu().double()


def _too_few(real: Tensor, made: Tensor, needed: int, what: str) -> SetScore | None:
    n = min(len(real), len(made))
    if n >= needed:
        return None
    return SetScore(value=None, reason=f"{what} needs {needed:,} images of each kind, there are {n:,}", n=n)


def _score(value: float, real: Tensor, made: Tensor) -> SetScore:
    return SetScore(value=value, reason=None, n=min(len(real), len(made)))


def _kernel_sum(first: Tensor, second: Tensor, *, diagonal: bool) -> float:
    d = first.shape[1]
    total = sum(float((rows @ second.T / d + 1).pow(3).sum()) for rows in first.split(CHUNK))
    return total if diagonal else total - float((first.square().sum(1) / d + 1).pow(3).sum())


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Return squared distances; those below a millionth of the points' lengths are rounding, and made 0."""
    lengths = first.square().sum(1, keepdim=True) + second.square().sum(1)
    squares = lengths - 2 * first @ second.T
    return squares.masked_fill_(squares <= 1e-12 * lengths, 0.0)


def _radii(points: Tensor, k: int) -> Tensor:
    """Return each point's squared distance to its k-th nearest other point."""
    # the nearest of all is the point itself, at distance 0
    return torch.cat([squared_distances(rows, points).kthvalue(k + 1, dim=1).values for rows in points.split(CHUNK)])
