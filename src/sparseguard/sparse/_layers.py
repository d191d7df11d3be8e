"""Sparse coding as layers."""

from __future__ import annotations

from typing import Unpack, final

import torch

from sparseguard.sparse._base_layer import CodingSettings, SparseCoding, require_positive
from sparseguard.sparse._dictionary import ConvDictionary, DenseDictionary, Images, Padding, random_atoms, unit_norm


@final
class SparseCode2d(SparseCoding):
    r"""Replace each image by its sparse code over a dictionary of small patches.

    .. math:: R(X) = \arg\min_{R \ge 0} \tfrac12 \|X - R \circledast W\|_2^2 + \lambda \sum R

    ``(n, in_channels, h, w)`` becomes ``(n, features, p, q)``; with ``same`` padding p = ceil(h / stride).

    Args:
        in_channels: channels of the input.
        features: number of atoms.
        kernel_size: side of the square atoms; odd for ``same`` padding.
        stride: distance of neighboring positions.
        padding: ``same`` or ``valid``.
        generator: draws the random unit-norm atoms.
        settings: those of `SparseCoding`, among them ``lambd``, ``steps`` and ``gradient``.

    Raises:
        ValueError: for a setting out of range, or images smaller than an atom.
        DivergedError: when the input or the atoms are not finite.

    Source: paper, section 3, Eq. 1. Deviations: solved by FISTA by default, instead of the locally
    competitive algorithm (Eq. 2); the optimum is the same for ``valid`` padding, and for ``same`` padding Eq. 2's
    Gram form ignores that the reconstruction is cropped at the border.

    Example:
        >>> import torch
        >>> from sparseguard.sparse import SparseCode2d
        >>> layer = SparseCode2d(1, 16, lambd=0.5)
        >>> code = layer(torch.rand(2, 1, 28, 28))
        >>> code.shape, bool((code >= 0).all())
        (torch.Size([2, 16, 28, 28]), True)
    """

    def __init__(
        self,
        in_channels: int,
        features: int,
        kernel_size: int = 5,
        *,
        stride: int = 1,
        padding: Padding = "same",
        generator: torch.Generator | None = None,
        **settings: Unpack[CodingSettings],
    ) -> None:
        require_positive(in_channels=in_channels, features=features, kernel_size=kernel_size, stride=stride)
        if padding not in ("same", "valid"):
            raise ValueError(f"padding must be 'same' or 'valid', got {padding!r}.")
        if padding == "same" and kernel_size % 2 == 0:
            raise ValueError(f"'same' padding needs an odd kernel_size, got {kernel_size}.")
        super().__init__(random_atoms(features, in_channels, (kernel_size, kernel_size), generator), **settings)
        self.in_channels, self.kernel_size, self.stride, self.padding = in_channels, kernel_size, stride, padding

    def operator(self, images: Images) -> ConvDictionary:
        """Return the dictionary for images of this size."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(f"expected images (n, {self.in_channels}, h, w), got {tuple(images.shape)}.")
        if self.padding == "valid" and min(images.shape[2:]) < self.kernel_size:
            raise ValueError(f"images of {tuple(images.shape[2:])} are smaller than an atom ({self.kernel_size}).")
        return ConvDictionary(self.dictionary, self.stride, self.padding, (int(images.shape[2]), int(images.shape[3])))

    def _describe_shape(self) -> str:
        return (
            f"{self.in_channels}, {self.features}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}"
        )


@final
class SparseCodeDense(SparseCoding):
    r"""Replace each vector by its sparse code over a dictionary of vectors as long.

    ``(n, in_features)`` becomes ``(n, features)``, by the problem of `SparseCode2d` with a matrix product as the
    synthesis.

    Args:
        in_features: length of the inputs.
        features: number of atoms.
        generator: draws the random unit-norm atoms.
        settings: those of `SparseCoding`.

    Raises:
        ValueError: for a setting out of range, or inputs of another length.
        DivergedError: when the input or the atoms are not finite.

    Example:
        >>> import torch
        >>> from sparseguard.sparse import SparseCodeDense
        >>> SparseCodeDense(20, 50, lambd=0.1)(torch.rand(3, 20)).shape
        torch.Size([3, 50])
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        generator: torch.Generator | None = None,
        **settings: Unpack[CodingSettings],
    ) -> None:
        require_positive(in_features=in_features, features=features)
        super().__init__(unit_norm(torch.randn(features, in_features, generator=generator)), **settings)
        self.in_features = in_features

    def operator(self, images: Images) -> DenseDictionary:
        """Return the dictionary."""
        if images.ndim != 2 or images.shape[1] != self.in_features:
            raise ValueError(f"expected inputs (n, {self.in_features}), got {tuple(images.shape)}.")
        return DenseDictionary(self.dictionary)

    def _describe_shape(self) -> str:
        return f"{self.in_features}, {self.features}"
