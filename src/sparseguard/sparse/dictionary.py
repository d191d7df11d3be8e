"""Convolutional dictionaries: atoms, synthesis and its adjoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Padding = Literal["same", "valid"]


def unit_norm(atoms: Float[Tensor, "f c kh kw"]) -> Float[Tensor, "f c kh kw"]:
    """Scale each atom to Euclidean norm 1; an atom of zeros stays zero."""
    norms = torch.linalg.vector_norm(atoms, dim=(1, 2, 3), keepdim=True)
    unit: Tensor = atoms / norms.clamp_min(torch.finfo(atoms.dtype).tiny)
    return unit


def random_atoms(
    features: int, channels: int, kernel: tuple[int, int], generator: torch.Generator | None = None
) -> Float[Tensor, "f c kh kw"]:
    """Draw atoms ``(features, channels, kh, kw)`` uniformly from the unit sphere."""
    return unit_norm(torch.randn(features, channels, *kernel, generator=generator))


@dataclass(frozen=True, eq=False)
class ConvDictionary:
    r"""The linear operator :math:`R \mapsto R \circledast W` for images of one size, and its adjoint.

    Synthesis is a transposed convolution with the atoms; analysis, its exact adjoint, is the convolution
    (cross-correlation, as `torch.nn.functional.conv2d` defines it). With ``same`` padding the synthesis is cropped at
    the border, and a code has ``ceil(size / stride)`` positions (the paper writes floor; they agree where the stride
    divides the size). With ``valid`` padding every atom lies inside the image.

    Args:
        atoms: ``(features, channels, kh, kw)``.
        stride: distance of neighbouring positions, in pixels.
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

    def analysis(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f p q"]:
        """Correlate images with every atom: ``(n, c, h, w)`` to ``(n, f, p, q)``."""
        return F.conv2d(images, self.atoms, stride=self.stride, padding=self.margins)

    def synthesis(self, code: Float[Tensor, "n f p q"]) -> Float[Tensor, "n c h w"]:
        """Sum the atoms weighted by the code: ``(n, f, p, q)`` to ``(n, c, h, w)``."""
        _, p, q = self.code_shape
        (kh, kw), (ph, pw), (h, w) = self.atoms.shape[2:], self.margins, self.size
        rest = (
            h - ((p - 1) * self.stride - 2 * ph + int(kh)),
            w - ((q - 1) * self.stride - 2 * pw + int(kw)),
        )
        return F.conv_transpose2d(code, self.atoms, stride=self.stride, padding=self.margins, output_padding=rest)
