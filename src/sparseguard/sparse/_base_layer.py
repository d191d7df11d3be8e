"""What all sparse-coding layers share: upkeep of the dictionary, running the solver, local learning."""

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
from sparseguard.sparse._autocast import own_precision
from sparseguard.sparse._dictionary import Atoms, Codes, Dictionary, Images, unit_norm
from sparseguard.sparse._hebbian import Gathered, hebbian_update
from sparseguard.sparse._lipschitz import lipschitz_bound
from sparseguard.sparse._problem import Penalty, Problem
from sparseguard.sparse._solve import Solution, solve
from sparseguard.sparse._solvers.base import Method
from sparseguard.sparse._solvers.fista import Fista

REVISION = 3
"""Raised when codes or updates change; part of every key that rests on them."""


def standardize(images: Images, eps: float = 1e-5) -> Images:
    """Give each image mean 0 and (population) variance 1 over all its values; a constant image becomes 0.

    Example:
        >>> import torch
        >>> from sparseguard.sparse import standardize
        >>> standardize(torch.tensor([[[[0.0, 1.0]]]])).round(decimals=3).tolist()
        [[[[-1.0, 1.0]]]]
    """
    axes = tuple(range(1, images.ndim))
    centred = images - images.mean(dim=axes, keepdim=True)
    variance = centred.square().mean(dim=axes, keepdim=True)
    rounding = (16 * torch.finfo(images.dtype).eps * (images - centred)).square()
    return torch.where(variance > rounding, centred / (variance + eps**2).sqrt(), centred * 0)


class StandardizeImage(nn.Module):
    """`standardize` as a module."""

    def forward(self, images: Images) -> Images:
        """Return the standardized images."""
        return standardize(images)


class CodingSettings(TypedDict, total=False):
    """The settings of every sparse-coding layer; `SparseCoding` says what each means."""

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

    The atoms keep norm 1 and the step size follows the dictionary: whenever the atoms were changed (by an optimizer,
    `apply_update`, ``load_state_dict``), the next call renormalizes them and computes the step size anew. Under
    autocast the layer computes in its own precision. `torch.compile` runs it as it is and compiles what is around it.
    `torch.export` (with ``strict=False``) takes a layer of fixed steps; an exported one normalizes its atoms and
    computes the step size in every call, passes gradients as `Unrolled` does, and gives what it gives where the layer
    would raise `DivergedError`.

    Args:
        atoms: the dictionary at the start, features first.
        lambd: sparsity weight lambda, >= 0 (named as in `torch.nn.Softshrink`); one, or one a feature.
        nonnegative: whether codes must not be negative.
        penalty: ``l1`` (soft threshold), or ``l0`` (hard threshold, for the method `Lca`).
        standardize: give each input mean 0 and variance 1 first.
        method: `Fista` (when absent) or `Lca`.
        steps: solver steps; with a tolerance, at most this many.
        tolerance: solve each image until its KKT residual is at most this, rather than for a fixed number of steps.
        check_every: steps between two looks at the residual.
        gradient: `Unrolled` (when absent), `Implicit`, `OneStep` or `Detached`.
        hebbian: in training mode, gather what `apply_update` needs.
        backprop: whether the dictionary takes gradients.
        rate: step of the local update.
    """

    lipschitz: Tensor
    followed: Tensor

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
        self.register_buffer("followed", torch.zeros_like(atoms), persistent=False)
        self.gathered: Gathered | None = None

    @abstractmethod
    def operator(self, images: Images) -> Dictionary:
        """Return the dictionary for inputs of this shape.

        Raises:
            ValueError: when the layer does not take such inputs.
        """

    @abstractmethod
    def _own_repr(self) -> str: ...

    @property
    def learns(self) -> bool:
        """Whether training can change the codes."""
        return self.hebbian or self.dictionary.requires_grad

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that codes depend on besides the inputs: `REVISION`, settings, atoms."""
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
        """Return codes, residuals, energies, status and all else that is known; `forward` returns the codes alone.

        Args:
            images: the inputs.
            start: codes to start from, such as those of an earlier call.
            trace: record every step's energy, active share and residual.

        Raises:
            ValueError: when the layer does not take such inputs.
            DivergedError: when the input or the atoms are not finite.
        """
        dictionary = self.operator(images)
        with own_precision(images.device):
            dictionary, lipschitz = self._current(dictionary)
            images = images.to(self.dictionary.dtype)
            found = solve(
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
                found.require_finite()
            if self.training and self.hebbian:
                with torch.no_grad():
                    fresh = Gathered.of(found.code, found.residual, dictionary)
                    self.gathered = fresh if self.gathered is None else self.gathered.plus(fresh)
        return found

    @torch.no_grad()
    def apply_update(self) -> None:
        """Apply the local update to what training forwards gathered since the last call, and forget it.

        With `torch.distributed` at work all processes must call it together: what they gathered is summed, so that
        their dictionaries stay equal.
        """
        gathered = (self.gathered or Gathered.nothing(self.dictionary)).summed_over_processes()
        self.dictionary.copy_(hebbian_update(self.dictionary, gathered.correlation, gathered.active, self.rate))
        self.gathered = None

    def _current(self, dictionary: Dictionary) -> tuple[Dictionary, Float[Tensor, ""]]:
        """Return the dictionary with atoms of norm 1, and its bound."""
        if not torch.compiler.is_exporting():
            self._follow_dictionary(dictionary)
            return dictionary, self.lipschitz.clone()
        if self.tolerance is not None:
            raise ValueError("a layer with a tolerance iterates as often as its input needs; export one without.")
        dictionary = replace(dictionary, atoms=unit_norm(dictionary.atoms))
        return dictionary, lipschitz_bound(dictionary)

    @torch.no_grad()
    def _follow_dictionary(self, dictionary: Dictionary) -> None:
        """Renormalize changed atoms and bring the step size up to date."""
        if torch.equal(self.dictionary, self.followed):
            return
        self.dictionary.copy_(unit_norm(self.dictionary))
        self.lipschitz = lipschitz_bound(dictionary)
        self.followed = self.dictionary.detach().clone()

    def extra_repr(self) -> str:
        """Tell every setting."""
        return (
            f"{self._own_repr()}, lambd={self.lambd}, nonnegative={self.nonnegative}, penalty={self.penalty!r}, "
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
