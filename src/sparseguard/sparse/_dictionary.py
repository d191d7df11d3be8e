"""Dictionaries: atoms, synthesis and its adjoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.grad import conv2d_weight

D = TypeVar("D", bound="Dictionary")
Padding = Literal["same", "valid"]
Atoms = Float[Tensor, "f *patch"]
Images = Float[Tensor, "n *image"]
Codes = Float[Tensor, "n *code"]


def unit_norm(atoms: Atoms) -> Atoms:
    """Scale each atom to Euclidean norm 1; an atom of zeros stays zero, one of norm 1 to rounding stays as it is."""
    norms = torch.linalg.vector_norm(atoms, dim=tuple(range(1, atoms.ndim)), keepdim=True)
    precision = torch.finfo(atoms.dtype)
    unit: Tensor = atoms / norms.clamp_min(precision.tiny)
    return torch.where((norms - 1).abs() <= 4 * precision.eps, atoms, unit)


def random_atoms(
    features: int, channels: int, kernel: tuple[int, int], generator: torch.Generator | None = None
) -> Float[Tensor, "f c kh kw"]:
    """Draw atoms ``(features, channels, kh, kw)`` uniformly from the unit sphere."""
    return unit_norm(torch.randn(features, channels, *kernel, generator=generator))


@dataclass(frozen=True, eq=False)
class Dictionary(ABC):
    r"""A linear operator :math:`R \mapsto R \circledast W` from codes to images, and its adjoint."""

    atoms: Atoms

    @property
    @abstractmethod
    def code_shape(self) -> tuple[int, ...]:
        """Shape of one image's code, features first."""

    @abstractmethod
    def analysis(self, images: Images, bias: Float[Tensor, " f"] | None = None) -> Codes:
        """Correlate images with every atom, the adjoint of `synthesis`; ``bias`` is added to each feature."""

    @abstractmethod
    def synthesis(self, code: Codes) -> Images:
        """Sum the atoms weighted by the code."""

    @abstractmethod
    def correlate(self, code: Codes, images: Images) -> Atoms:
        r"""Sum, over images and positions, coefficient times the part of the image that its atom covers.

        It is the gradient in W of :math:`\langle R \circledast W, X \rangle`.
        """

    @abstractmethod
    def connectivity(self) -> Tensor:
        """Return how strongly features compete: inner products of shifted atoms, each atom's own excluded."""

    @abstractmethod
    def inhibition(self, code: Codes, connectivity: Tensor) -> Codes:
        """Return the lateral competition of the paper's Eq. 2, ``R * G``."""

    def per_feature(self, values: Float[Tensor, " f"]) -> Tensor:
        """Reshape one value for each feature so that it broadcasts with codes."""
        return values.view(-1, *(1,) * (len(self.code_shape) - 1))

    def with_atoms(self: D, atoms: Atoms) -> D:
        """Return the same operator with other atoms."""
        return replace(self, atoms=atoms)


@dataclass(frozen=True, eq=False)
class ConvDictionary(Dictionary):
    r"""Atoms placed at every position of images of one size.

    Synthesis is a transposed convolution with the atoms; analysis, its exact adjoint, is the convolution
    (cross-correlation, as `torch.nn.functional.conv2d` defines it). With ``same`` padding the synthesis is cropped at
    the border, and a code has ``ceil(size / stride)`` positions (the paper writes floor; they agree where the stride
    divides the size). With ``valid`` padding every atom lies inside the image.

    Args:
        atoms: ``(features, channels, kh, kw)``.
        stride: distance of neighboring positions, in pixels.
        padding: ``same`` (odd kernels only) or ``valid``.
        size: height and width of the images.
    """

    atoms: Float[Tensor, "f c kh kw"]
    stride: int
    padding: Padding
    size: tuple[int, int]

    @property
    def margins(self) -> tuple[int, int]:
        """Zero padding of the analysis, in pixels."""
        kh, kw = self.atoms.shape[2:]
        return ((kh - 1) // 2, (kw - 1) // 2) if self.padding == "same" else (0, 0)

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Features, height and width of a code."""
        f, _, kh, kw = self.atoms.shape
        (ph, pw), (h, w) = self.margins, self.size
        return int(f), (h + 2 * ph - int(kh)) // self.stride + 1, (w + 2 * pw - int(kw)) // self.stride + 1

    def analysis(
        self, images: Float[Tensor, "n c h w"], bias: Float[Tensor, " f"] | None = None
    ) -> Float[Tensor, "n f p q"]:
        """Correlate images with every atom: ``(n, c, h, w)`` to ``(n, f, p, q)``."""
        return F.conv2d(images, self.atoms, bias, stride=self.stride, padding=self.margins)

    def synthesis(self, code: Float[Tensor, "n f p q"]) -> Float[Tensor, "n c h w"]:
        """Sum the atoms weighted by the code: ``(n, f, p, q)`` to ``(n, c, h, w)``."""
        _, p, q = self.code_shape
        (kh, kw), (ph, pw), (h, w) = self.atoms.shape[2:], self.margins, self.size
        output_padding = (
            h - ((p - 1) * self.stride - 2 * ph + int(kh)),
            w - ((q - 1) * self.stride - 2 * pw + int(kw)),
        )
        return F.conv_transpose2d(
            code, self.atoms, stride=self.stride, padding=self.margins, output_padding=output_padding
        )

    def correlate(self, code: Float[Tensor, "n f p q"], images: Float[Tensor, "n c h w"]) -> Float[Tensor, "f c kh kw"]:
        """Sum coefficient times patch: entry ``[f, c, i, j]`` belongs to pixel ``(i, j)`` of atom f's patches."""
        summed: Tensor = conv2d_weight(images, self.atoms.shape, code, stride=self.stride, padding=self.margins)
        return summed

    def connectivity(self) -> Float[Tensor, "f f dh dw"]:
        """Return ``(features, features, dh, dw)``, the shifts counted in strides, no shift in the middle.

        It ignores the border: with ``same`` padding it differs there from analysis of synthesis.
        """
        reach = tuple((int(side) - 1) // self.stride for side in self.atoms.shape[2:])
        products = F.conv2d(self.atoms, self.atoms, stride=self.stride, padding=[r * self.stride for r in reach])
        diagonal = torch.zeros_like(products)
        diagonal[:, :, reach[0], reach[1]] = torch.eye(len(self.atoms), dtype=diagonal.dtype, device=diagonal.device)
        return products * (1 - diagonal)

    def inhibition(
        self, code: Float[Tensor, "n f p q"], connectivity: Float[Tensor, "f f dh dw"]
    ) -> Float[Tensor, "n f p q"]:
        """Convolve the code with the connectivity."""
        return F.conv2d(code, connectivity, padding=[int(side) // 2 for side in connectivity.shape[2:]])


@dataclass(frozen=True, eq=False)
class DenseDictionary(Dictionary):
    """Atoms as long as the input: codes ``(n, features)`` of vectors ``(n, in_features)``."""

    atoms: Float[Tensor, "f d"]

    @property
    def code_shape(self) -> tuple[int]:
        """Number of features."""
        return (int(self.atoms.shape[0]),)

    def analysis(self, images: Float[Tensor, "n d"], bias: Float[Tensor, " f"] | None = None) -> Float[Tensor, "n f"]:
        """Return the inner products with every atom."""
        return F.linear(images, self.atoms, bias)

    def synthesis(self, code: Float[Tensor, "n f"]) -> Float[Tensor, "n d"]:
        """Return the atoms weighted by the code."""
        return code @ self.atoms

    def correlate(self, code: Float[Tensor, "n f"], images: Float[Tensor, "n d"]) -> Float[Tensor, "f d"]:
        """Sum coefficient times vector."""
        return code.mT @ images

    def connectivity(self) -> Float[Tensor, "f f"]:
        """Return the atoms' inner products with a diagonal of zeros."""
        products = self.atoms @ self.atoms.mT
        return products - torch.diag(products.diagonal())

    def inhibition(self, code: Float[Tensor, "n f"], connectivity: Float[Tensor, "f f"]) -> Float[Tensor, "n f"]:
        """Multiply the code with the connectivity."""
        return code @ connectivity
