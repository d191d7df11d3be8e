"""Base class of sparse-coding layers: normalization of the dictionary, solver, local learning."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.sparse._adjoint import Gradient, Unrolled
from sparseguard.sparse._autocast import disable_autocast
from sparseguard.sparse._dictionary import Atoms, Codes, Dictionary, Images, unit_norm
from sparseguard.sparse._hebbian import HebbianStatistics, hebbian_update
from sparseguard.sparse._lipschitz import lipschitz_bound
from sparseguard.sparse._problem import Penalty, Problem
from sparseguard.sparse._solution import Solution, solve
from sparseguard.sparse._solvers.base import Method
from sparseguard.sparse._solvers.fista import Fista

REVISION = 3
"""Raised when codes or updates change; part of every key that depends on them."""


def standardize(images: Images, eps: float = 1e-5) -> Images:
    """Give each image mean 0 and (population) variance 1 over all its values; a constant image becomes 0.

    Example:
        >>> import torch
        >>> from sparseguard.sparse import standardize
        >>> standardize(torch.tensor([[[[0.0, 1.0]]]])).round(decimals=3).tolist()
        [[[[-1.0, 1.0]]]]
    """
    axes = tuple(range(1, images.ndim))
    centered = images - images.mean(dim=axes, keepdim=True)
    variance = centered.square().mean(dim=axes, keepdim=True)
    rounding = (16 * torch.finfo(images.dtype).eps * (images - centered)).square()
    return torch.where(variance > rounding, centered / (variance + eps**2).sqrt(), centered * 0)


class StandardizeImage(nn.Module):
    """`standardize` as a module."""

    def forward(self, images: Images) -> Images:
        """Return the standardized images."""
        return standardize(images)


class CodingSettings(TypedDict, total=False):
    """The settings of every sparse-coding layer; documented in `SparseCoding`."""

    lambd: float | Sequence[float]
    nonnegative: bool
    penalty: Penalty
    standardize: bool
    method: Method | None
    steps: int
    tolerance: float | None
    check_every: int
    gradient: Gradient | None
    hebbian: bool
    backprop: bool
    rate: float


class SparseCoding(nn.Module, ABC):
    """Replace each input by its sparse code. Layers differ in their dictionary.

    The atoms keep norm 1 and the step size follows the dictionary: after a change of the atoms (by an optimizer,
    `apply_update`, ``load_state_dict``), the next call renormalizes them and recomputes the step size. Under
    autocast the layer computes in its own precision. `torch.compile` runs it uncompiled and compiles the code around
    it. `torch.export` (with ``strict=False``) supports a layer of fixed steps; an exported layer normalizes its atoms
    and computes the step size in every call, passes gradients as `Unrolled` does, and returns its result where the
    layer would raise `DivergedError`.

    Args:
        atoms: the dictionary at the start, features first.
        lambd: sparsity weight lambda, >= 0 (named as in `torch.nn.Softshrink`); one value, or one for each feature.
        nonnegative: whether codes must not be negative.
        penalty: ``l1`` (soft threshold), or ``l0`` (hard threshold, for the method `Lca`).
        standardize: give each input mean 0 and variance 1 first.
        method: `Fista` (when absent) or `Lca`.
        steps: solver steps; with a tolerance, at most this many.
        tolerance: solve each image until its KKT residual is at most this, rather than for a fixed number of steps.
        check_every: steps between two checks of the residual.
        gradient: `Unrolled` (when absent), `Implicit`, `OneStep` or `Detached`.
        hebbian: in training mode, collect the statistics for `apply_update`.
        backprop: whether the dictionary takes gradients.
        rate: step of the local update.
    """

    lipschitz: Tensor
    normalized: Tensor

    def __init__(
        self,
        atoms: Atoms,
        *,
        lambd: float | Sequence[float] = 0.5,
        nonnegative: bool = True,
        penalty: Penalty = "l1",
        standardize: bool = True,
        method: Method | None = None,
        steps: int = 15,
        tolerance: float | None = None,
        check_every: int = 10,
        gradient: Gradient | None = None,
        hebbian: bool = False,
        backprop: bool = False,
        rate: float = 0.01,
    ) -> None:
        super().__init__()
        self.features = len(atoms)
        self.nonnegative, self.penalty, self.standardize = nonnegative, penalty, standardize
        self.method, self.steps, self.tolerance, self.check_every = method or Fista(), steps, tolerance, check_every
        self.gradient, self.hebbian, self.rate = gradient or Unrolled(), hebbian, rate
        self.lambd = float(lambd) if isinstance(lambd, float | int) else tuple(float(value) for value in lambd)
        self._check_settings()
        self.dictionary = nn.Parameter(atoms, requires_grad=backprop)
        self.register_buffer("lipschitz", torch.ones(()), persistent=False)
        self.register_buffer("normalized", torch.zeros_like(atoms), persistent=False)
        self.statistics: HebbianStatistics | None = None

    @abstractmethod
    def operator(self, images: Images) -> Dictionary:
        """Return the dictionary for inputs of this shape.

        Raises:
            ValueError: when the layer does not accept such inputs.
        """

    @abstractmethod
    def _describe_shape(self) -> str: ...

    @property
    def learns(self) -> bool:
        """Whether training can change the codes."""
        return self.hebbian or self.dictionary.requires_grad

    def fingerprint(self) -> str:
        """Return the SHA-256 of everything that codes depend on besides the inputs: `REVISION`, settings, atoms."""
        digest = hashlib.sha256(f"{REVISION} {self}".encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def forward(self, images: Images) -> Codes:
        """Return the codes."""
        code: Tensor = self.solution(images).code
        return code

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def solution(self, images: Images, *, start: Codes | None = None, trace: bool = False) -> Solution:
        """Return codes, residuals, energies, status and more; `forward` returns the codes alone.

        Args:
            images: the inputs.
            start: codes to start from, such as those of an earlier call.
            trace: record every step's energy, active fraction and residual.

        Raises:
            ValueError: when the layer does not accept such inputs.
            DivergedError: when the input or the atoms are not finite.
        """
        dictionary = self.operator(images)
        with disable_autocast(images.device):
            dictionary, lipschitz = self._normalize(dictionary)
            images = images.to(self.dictionary.dtype)
            result = solve(
                Problem(
                    standardize(images) if self.standardize else images,
                    dictionary,
                    self.lambd if isinstance(self.lambd, float) else images.new_tensor(self.lambd),
                    self.nonnegative,
                    self.penalty,
                ),
                self.method,
                steps=self.steps,
                tolerance=self.tolerance,
                check_every=self.check_every,
                start=start,
                gradient=self.gradient,
                lipschitz=lipschitz,
                trace=trace,
            )
            if not torch.compiler.is_exporting():
                result.require_finite()
            if self.training and self.hebbian:
                with torch.no_grad():
                    batch = HebbianStatistics.from_batch(result.code, result.residual, dictionary)
                    self.statistics = batch if self.statistics is None else self.statistics.add(batch)
        return result

    @torch.no_grad()
    def apply_update(self) -> None:
        """Apply the local update from the statistics of training forwards since the last call, and reset them.

        With `torch.distributed` all processes must call it together: their statistics are summed, so that their
        dictionaries stay equal.
        """
        statistics = (self.statistics or HebbianStatistics.zeros(self.dictionary)).all_reduce()
        self.dictionary.copy_(hebbian_update(self.dictionary, statistics.correlation, statistics.active, self.rate))
        self.statistics = None

    def _normalize(self, dictionary: Dictionary) -> tuple[Dictionary, Float[Tensor, ""]]:
        """Return the dictionary with atoms of norm 1, and its bound."""
        if not torch.compiler.is_exporting():
            self._update_step_size(dictionary)
            return dictionary, self.lipschitz.clone()
        if self.tolerance is not None:
            raise ValueError(
                "a layer with a tolerance has a number of steps that depends on the input; export one without."
            )
        dictionary = replace(dictionary, atoms=unit_norm(dictionary.atoms))
        return dictionary, lipschitz_bound(dictionary)

    @torch.no_grad()
    def _update_step_size(self, dictionary: Dictionary) -> None:
        """Renormalize changed atoms and recompute the step size."""
        if torch.equal(self.dictionary, self.normalized):
            return
        self.dictionary.copy_(unit_norm(self.dictionary))
        self.lipschitz = lipschitz_bound(dictionary)
        self.normalized = self.dictionary.detach().clone()

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self._describe_shape()}, lambd={self.lambd}, nonnegative={self.nonnegative}, penalty={self.penalty!r}, "
            f"standardize={self.standardize}, method={self.method}, steps={self.steps}, tolerance={self.tolerance}, "
            f"check_every={self.check_every}, gradient={self.gradient}, hebbian={self.hebbian}, "
            f"backprop={self.dictionary.requires_grad}, rate={self.rate}"
        )

    def _check_settings(self) -> None:
        require_positive(steps=self.steps, check_every=self.check_every)
        lambdas = (self.lambd,) * self.features if isinstance(self.lambd, float) else self.lambd
        if not all(value >= 0 for value in lambdas):
            raise ValueError(f"lambd must be at least 0, got {self.lambd}.")
        if len(lambdas) != self.features:
            raise ValueError(f"lambd needs one value, or one for each of {self.features} features.")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0, got {self.tolerance}.")
        if not self.rate >= 0:
            raise ValueError(f"rate must be at least 0, got {self.rate}.")
        if self.penalty not in ("l1", "l0"):
            raise ValueError(f"penalty must be 'l1' or 'l0', got {self.penalty!r}.")
        if self.penalty == "l0" and isinstance(self.method, Fista):
            raise ValueError("Fista solves the l1 problem; penalty 'l0' needs method=Lca().")


def require_positive(**counts: int) -> None:
    """Refuse counts below 1 by their names."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
