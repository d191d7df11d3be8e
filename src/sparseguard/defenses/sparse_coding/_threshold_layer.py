"""Codes without competition between atoms: the analysis of the image, thresholded."""

from __future__ import annotations

import hashlib
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.sparse import ConvDictionary, random_atoms, standardize, unit_norm


@final
class ThresholdCode2d(nn.Module):
    r"""Replace each image by its thresholded analysis, :math:`R = \mathrm{relu}(X * W - \lambda)`.

    The atoms W are drawn as those of `SparseCode2d` and equal these at the same seed. ``(n, in_channels, h, w)``
    becomes ``(n, features, h, w)``.

    Args:
        in_channels: channels of the input.
        features: number of atoms.
        kernel_size: side of the square atoms; odd.
        lambd: threshold.
        standardize: give each input mean 0 and variance 1 first.
        backprop: whether the atoms take gradients; `renormalize` them after each step.
    """

    def __init__(
        self,
        in_channels: int,
        features: int,
        kernel_size: int,
        *,
        lambd: float,
        standardize: bool = True,
        backprop: bool = False,
    ) -> None:
        super().__init__()
        self.lambd, self.standardize = lambd, standardize
        self.dictionary = nn.Parameter(
            random_atoms(features, in_channels, (kernel_size, kernel_size)), requires_grad=backprop
        )

    @property
    def learns(self) -> bool:
        """Whether training can change the codes."""
        return self.dictionary.requires_grad

    def fingerprint(self) -> str:
        """Return the SHA-256 of everything that codes depend on besides the inputs: settings and atoms."""
        atoms = self.dictionary.detach().cpu()
        digest = hashlib.sha256(f"1 {self} {atoms.dtype} {tuple(atoms.shape)}".encode())
        digest.update(atoms.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f h w"]:
        """Return the codes."""
        inputs = standardize(images) if self.standardize else images
        size = (int(images.shape[2]), int(images.shape[3]))
        return torch.relu(ConvDictionary(self.dictionary, 1, "same", size).analysis(inputs) - self.lambd)

    @torch.no_grad()
    def renormalize(self) -> None:
        """Rescale the atoms to norm 1."""
        self.dictionary.copy_(unit_norm(self.dictionary))

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"lambd={self.lambd}, standardize={self.standardize}, backprop={self.learns}"
