"""Sparse coding as a layer."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.sparse.dictionary import ConvDictionary, Padding, random_atoms, unit_norm
from sparseguard.sparse.learn import correlate, hebbian_update
from sparseguard.sparse.problem import largest_eigenvalue
from sparseguard.sparse.solve import Solution, solve

COLD_ITERATIONS = 80
WARM_ITERATIONS = 4
SMALL_CHANGE = 0.05
"""Largest change of an atom's entry after which the old eigenvector is still a good start."""

STEP_MARGIN = 1.05
"""Power iteration approaches the eigenvalue from below; the step is taken this much shorter."""


def standardize(images: Float[Tensor, "n c h w"], eps: float = 1e-5) -> Float[Tensor, "n c h w"]:
    """Give each image mean 0 and (population) variance 1 over channels and pixels; a constant image becomes 0.

    Example:
        >>> import torch
        >>> from sparseguard.sparse import standardize
        >>> standardize(torch.tensor([[[[0.0, 1.0]]]])).round(decimals=3).tolist()
        [[[[-1.0, 1.0]]]]
    """
    centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
    variance = centred.square().mean(dim=(1, 2, 3), keepdim=True)
    return centred / (variance + eps**2).sqrt()


class StandardizeImage(nn.Module):
    """`standardize` as a module."""

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return the standardized images."""
        return standardize(images)


class SparseCode2d(nn.Module):
    r"""Replace each image by its nonnegative sparse code over a dictionary of small patches.

    .. math:: R(X) = \arg\min_{R \ge 0} \tfrac12 \|X - R \circledast W\|_2^2 + \lambda \sum R

    ``(n, in_channels, h, w)`` becomes ``(n, features, p, q)``; with ``same`` padding p = ceil(h / stride).
    The problem is solved by a fixed number of FISTA steps (`sparseguard.sparse.solve.solve`); gradients are exact
    through the steps run. The atoms keep norm 1 and the step size follows the dictionary: whenever the atoms were
    changed (by an optimizer, `apply_update`, ``load_state_dict``), the next call renormalizes them and
    refreshes the Gram operator's largest eigenvalue.

    Args:
        in_channels: channels of the input.
        features: number of atoms.
        kernel_size: side of the square atoms; odd for ``same`` padding.
        stride: distance of neighbouring positions.
        lambd: sparsity weight lambda, >= 0 (named as in `torch.nn.Softshrink`).
        padding: ``same`` or ``valid``.
        standardize: give each input image mean 0 and variance 1 first.
        steps: FISTA steps.
        hebbian: in training mode, gather what `apply_update` needs.
        backprop: whether the dictionary takes gradients.
        rate: step of the local update.
        generator: draws the random unit-norm atoms.

    Raises:
        ValueError: for a setting out of range, or images smaller than an atom.
        DivergedError: when the input or the atoms are not finite.

    Source: paper, section 3, Eq. 1. Deviations: solved by FISTA instead of the locally competitive algorithm (Eq. 2);
    the optimum is the same for ``valid`` padding, and for ``same`` padding Eq. 2's Gram form ignores that the
    reconstruction is cropped at the border.

    Example:
        >>> import torch
        >>> from sparseguard.sparse import SparseCode2d
        >>> layer = SparseCode2d(1, 16, lambd=0.5)
        >>> code = layer(torch.rand(2, 1, 28, 28))
        >>> code.shape, bool((code >= 0).all())
        (torch.Size([2, 16, 28, 28]), True)
    """

    lipschitz: Tensor
    eigenvector: Tensor
    correlation: Tensor
    active: Tensor
    followed: Tensor

    def __init__(
        self,
        in_channels: int,
        features: int,
        kernel_size: int = 5,
        *,
        stride: int = 1,
        lambd: float = 0.5,
        padding: Padding = "same",
        standardize: bool = True,
        steps: int = 15,
        hebbian: bool = False,
        backprop: bool = False,
        rate: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        _check_settings(in_channels, features, kernel_size, stride, lambd, padding, steps, rate)
        self.in_channels, self.features, self.kernel_size, self.stride = in_channels, features, kernel_size, stride
        self.lambd, self.padding, self.standardize, self.steps = lambd, padding, standardize, steps
        self.hebbian, self.rate = hebbian, rate
        atoms = random_atoms(features, in_channels, (kernel_size, kernel_size), generator)
        self.dictionary = nn.Parameter(atoms, requires_grad=backprop)
        self.register_buffer("lipschitz", torch.ones(()))
        self.register_buffer("eigenvector", torch.zeros(1, features, 0, 0))
        self.register_buffer("correlation", torch.zeros_like(atoms), persistent=False)
        self.register_buffer("active", torch.zeros(features), persistent=False)
        self.register_buffer("followed", torch.zeros_like(atoms), persistent=False)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f p q"]:
        """Return the codes."""
        return self.solution(images).code

    def solution(self, images: Float[Tensor, "n c h w"]) -> Solution:
        """Return codes, residuals, energies and status; `forward` returns the codes alone."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(f"expected images (n, {self.in_channels}, h, w), got {tuple(images.shape)}.")
        if self.padding == "valid" and min(images.shape[2:]) < self.kernel_size:
            raise ValueError(f"images of {tuple(images.shape[2:])} are smaller than an atom ({self.kernel_size}).")
        dictionary = ConvDictionary(
            self.dictionary, self.stride, self.padding, (int(images.shape[2]), int(images.shape[3]))
        )
        self._follow_dictionary(dictionary)
        target = standardize(images) if self.standardize else images
        found = solve(target, dictionary, self.lambd, lipschitz=self.lipschitz.clone(), steps=self.steps)
        found.require_finite()
        if self.training and self.hebbian:
            with torch.no_grad():
                self.correlation += correlate(found.code, found.residual, dictionary)
                self.active += (found.code > 0).sum(dim=(0, 2, 3)).to(self.active.dtype)
        return found

    @torch.no_grad()
    def apply_update(self) -> None:
        """Apply the local update to what training forwards gathered since the last call, and forget it."""
        self.dictionary.copy_(hebbian_update(self.dictionary, self.correlation, self.active, self.rate))
        self.correlation.zero_()
        self.active.zero_()

    @torch.no_grad()
    def _follow_dictionary(self, dictionary: ConvDictionary) -> None:
        """Renormalize changed atoms and bring the step size up to date."""
        shape = (1, *dictionary.code_shape)
        fits = self.eigenvector.shape == shape
        if fits and torch.equal(self.dictionary, self.followed):
            return
        self.dictionary.copy_(unit_norm(self.dictionary))
        if fits and bool((self.dictionary - self.followed).abs().amax() < SMALL_CHANGE):
            start, iterations = self.eigenvector, WARM_ITERATIONS
        else:
            generator = torch.Generator().manual_seed(0)
            start = torch.randn(shape, generator=generator).to(self.dictionary)
            iterations = COLD_ITERATIONS
        eigenvalue, self.eigenvector = largest_eigenvalue(dictionary, start, iterations)
        self.lipschitz = eigenvalue.clamp_min(torch.finfo(eigenvalue.dtype).tiny) * STEP_MARGIN
        self.followed = self.dictionary.detach().clone()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over an eigenvector of any image size, and with it the step size as saved."""
        saved = state_dict.get(prefix + "eigenvector")
        if isinstance(saved, Tensor):
            self.eigenvector = torch.zeros(saved.shape, dtype=saved.dtype, device=self.eigenvector.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
        complete = all(prefix + name in state_dict for name in ("dictionary", "lipschitz", "eigenvector"))
        norms = torch.linalg.vector_norm(self.dictionary.detach(), dim=(1, 2, 3))
        if complete and torch.allclose(norms, torch.ones_like(norms), atol=1e-5):
            self.followed = self.dictionary.detach().clone()

    def extra_repr(self) -> str:
        """Tell every setting."""
        return (
            f"{self.in_channels}, {self.features}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"lambd={self.lambd}, padding={self.padding!r}, standardize={self.standardize}, steps={self.steps}, "
            f"hebbian={self.hebbian}, backprop={self.dictionary.requires_grad}, rate={self.rate}"
        )


def _check_settings(
    in_channels: int, features: int, kernel_size: int, stride: int, lambd: float, padding: str, steps: int, rate: float
) -> None:
    for name, value in (
        ("in_channels", in_channels),
        ("features", features),
        ("kernel_size", kernel_size),
        ("stride", stride),
        ("steps", steps),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if not lambd >= 0:
        raise ValueError(f"lambd must be at least 0, got {lambd}.")
    if not rate >= 0:
        raise ValueError(f"rate must be at least 0, got {rate}.")
    if padding not in ("same", "valid"):
        raise ValueError(f"padding must be 'same' or 'valid', got {padding!r}.")
    if padding == "same" and kernel_size % 2 == 0:
        raise ValueError(f"'same' padding needs an odd kernel_size, got {kernel_size}.")
