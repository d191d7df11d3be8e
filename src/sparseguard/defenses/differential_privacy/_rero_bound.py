"""Upper bound on reconstruction of a training record from weights trained by DP-SGD."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SLACK = 1e-9
"""Allowance for rounding and for truncated tails."""

_WIDENING = 2e-5
_MIN_POINTS, _MAX_POINTS = 1000, 1 << 19
_TAIL = 1e-14
_FAR = 100.0


def reconstruction_bound(*, prior: float, noise_multiplier: float, rate: float, steps: int) -> float:
    r"""Return an upper bound on the success probability of any attack on a model trained by DP-SGD.

    .. math:: \sup_E \{ Q^T(E) : P^T(E) \le \kappa \}, \quad
        P = N(0, \sigma^2), \quad Q = (1 - q) N(0, \sigma^2) + q N(1, \sigma^2)

    The attacker knows every other record, the algorithm and the weights after each step. By the Neyman-Pearson lemma
    the best set E holds the largest privacy losses :math:`\log(dQ^T/dP^T)`. The loss of one step is put on a grid so
    that the pair of distributions on the grid can be turned into P and Q by a channel (each interval's mass is split
    between its two ends so that both its P-mass and its Q-mass are kept), which can only raise the bound; it is then
    convolved with itself by a Fourier transform. `SLACK` covers truncation and rounding.

    Args:
        prior: kappa, the probability of success without the model.
        noise_multiplier: sigma, standard deviation of the noise in units of the clipping norm.
        rate: q, probability that a record is in a batch.
        steps: T.

    Raises:
        ValueError: for a value out of range.

    Source: Hayes, Mahloujifar and Balle 2023, "Bounding training data reconstruction in DP-SGD" (NeurIPS), who
    estimate it by sampling; the grid is that of Doroshenko et al. 2022, "Connect the dots".

    Example:
        >>> round(reconstruction_bound(prior=0.1, noise_multiplier=10.0, rate=1.0, steps=1), 3)
        0.119
    """
    if not (0 < prior <= 1 and noise_multiplier > 0 and 0 < rate <= 1 and steps >= 1):
        raise ValueError("a bound needs a prior in (0, 1], noise above 0, a rate in (0, 1] and at least one step.")
    loss = _make_step_loss(noise_multiplier, rate, steps)
    window = loss.window(steps)
    while (width := window[1] - window[0]) > 2 * _MAX_POINTS:
        loss = _make_step_loss(noise_multiplier, rate, steps, coarser=loss.mesh * max(2.0, width / (2 * _MAX_POINTS)))
        window = loss.window(steps)
    with_record, without = loss.compose(steps, window)
    q_tail, p_tail = with_record.flip(0).cumsum(0), without.flip(0).cumsum(0)
    bound = _interpolate(prior, p_tail, q_tail)
    return min(1.0, max(bound, prior) + SLACK)


@dataclass(frozen=True, eq=False)
class _Loss:
    """The privacy loss of one step on the grid ``least + mesh * (0, 1, ...)``, and its masses under Q and P."""

    mesh: float
    least: float
    q: Tensor
    p: Tensor

    def window(self, steps: int) -> tuple[int, int]:
        """Return the multiples of the mesh, above ``steps * least``, between which the sum of ``steps`` losses lies.

        Beyond each lies a mass of at most `_TAIL`.
        """
        values = self.mesh * torch.arange(len(self.q), dtype=torch.float64)
        ends = [_bound_tail(values, mass, steps, sign) for mass in (self.q, self.p) for sign in (-1, 1)]
        return math.floor(min(ends[0], ends[2]) / self.mesh), math.ceil(max(ends[1], ends[3]) / self.mesh)

    def compose(self, steps: int, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the masses of the sum of ``steps`` losses under Q and P, in ascending order of the loss.

        Each is computed where it is the larger one, and the other one is ``exp(-loss)`` or ``exp(loss)`` of it: a
        Fourier transform's rounding is absolute.
        """
        count = 1 << (window[1] - window[0]).bit_length()
        numbers = window[0] + torch.arange(count)
        q, p = (_convolve(mass, steps, count)[numbers % count] for mass in (self.q, self.p))
        values = steps * self.least + self.mesh * numbers.double()
        upper = values >= 0
        zero = torch.zeros((), dtype=torch.float64)
        return (
            torch.where(upper, q, p * torch.where(upper, zero, values).exp()),
            torch.where(upper, q * torch.where(upper, -values, zero).exp(), p),
        )


def _make_step_loss(sigma: float, rate: float, steps: int, coarser: float = 0.0) -> _Loss:
    """Put the loss of one step on a grid so fine that ``steps`` of them widen by little."""
    reach = 9.5 * sigma
    top = min(_FAR, _compute_loss(1 + reach, sigma, rate))
    bottom = max(-_FAR, math.log1p(-rate) if rate < 1 else _compute_loss(-reach, sigma, rate))
    fine = min(math.sqrt(8 * _WIDENING / steps), (top - bottom) / _MIN_POINTS)
    mesh = max(fine, (top - bottom) / _MAX_POINTS, coarser)
    ends = bottom + mesh * torch.arange(math.ceil((top - bottom) / mesh) + 1, dtype=torch.float64)
    points = _invert_loss(ends, sigma, rate)
    points[0], points[-1] = -math.inf, math.inf  # what lies beyond the grid counts to its outermost intervals
    p = _compute_masses(points / sigma)
    q = (1 - rate) * p + rate * _compute_masses((points - 1) / sigma)
    ratio = (-ends).exp()
    upper = ((q * ratio[:-1] - p) / (ratio[:-1] - ratio[1:])).clamp(min=0).minimum(q)
    mass = torch.zeros_like(ends)
    mass[1:] += upper
    mass[:-1] += q - upper
    return _Loss(mesh, bottom, mass, mass * ratio)


def _compute_loss(x: float, sigma: float, rate: float) -> float:
    exponent = (2 * x - 1) / (2 * sigma**2)
    if rate == 1:
        return exponent
    larger, smaller = sorted((math.log(rate) + exponent, math.log1p(-rate)), reverse=True)
    return larger + math.log1p(math.exp(smaller - larger))


def _invert_loss(loss: Tensor, sigma: float, rate: float) -> Tensor:
    """Return where the loss is ``loss``; nan below the least loss there is."""
    inner = loss + torch.log1p(-(1 - rate) * (-loss).exp()) - math.log(rate)
    return sigma**2 * inner + 0.5


def _compute_masses(edges: Tensor) -> Tensor:
    """Return the standard normal masses between neighboring edges, accurate in both tails."""
    low, high = edges[:-1], edges[1:]
    mirrored = low > 0
    below, above = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    masses: Tensor = torch.special.ndtr(above) - torch.special.ndtr(below)
    return masses


def _bound_tail(values: Tensor, mass: Tensor, steps: int, sign: int) -> float:
    """Return a value beyond which, on the side ``sign``, the sum lies with a probability of at most `_TAIL`."""
    logs, bounds = mass.log(), list[float]()
    for tilt in torch.logspace(-4, 3, 24, dtype=torch.float64).tolist():
        grown = float(torch.logsumexp(logs + sign * tilt * values, 0))
        bounds.append((steps * grown - math.log(_TAIL)) / tilt)
    return sign * min(bounds)


def _convolve(mass: Tensor, steps: int, count: int) -> Tensor:
    """Return the ``steps``-fold convolution of ``mass`` with itself, modulo ``count``."""
    folded = torch.zeros(count, dtype=torch.float64)
    folded.index_add_(0, torch.arange(len(mass)) % count, mass)
    transformed = torch.fft.rfft(folded)
    raised = torch.polar(transformed.abs() ** steps, transformed.angle() * steps)
    masses: Tensor = torch.fft.irfft(raised, count).clamp(min=0)
    return masses


def _interpolate(prior: float, p_tail: Tensor, q_tail: Tensor) -> float:
    """Return the largest Q-mass of a randomized set with the P-mass ``prior``."""
    index = int(torch.searchsorted(p_tail, prior))
    if index == len(p_tail):
        return 1.0
    p_before, q_before = (float(tail[index - 1]) if index else 0.0 for tail in (p_tail, q_tail))
    p_step, q_step = float(p_tail[index]) - p_before, float(q_tail[index]) - q_before
    return q_before + (q_step * (prior - p_before) / p_step if p_step > 0 else q_step)
