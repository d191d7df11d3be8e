"""Fronts: pairs of sparse layer and normalization, or layers that return their input's reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from sparseguard.core.errors import RecipeError
from sparseguard.sparse import SparseCode2d
from sparseguard.sparse._autocast import disable_autocast

Emit = Literal["codes", "reconstruction"]
Learn = Literal["both", "backprop", "local", "none"]


@final
class ReconstructionLayer(nn.Module):
    """A sparse layer that returns the reconstruction from its code, in the input's shape ``(n, c, h, w)`` and scale.

    The code is that of the image standardized to mean 0 and variance 1; the output has the image's mean and deviation.

    Args:
        layer: the sparse layer; it standardizes its input.
    """

    def __init__(self, layer: SparseCode2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstruction."""
        code = self.layer(images)
        with disable_autocast(images.device):
            plain = images.to(code.dtype)
            variance, mean = torch.var_mean(plain, dim=(1, 2, 3), correction=0, keepdim=True)
            return mean + (variance + 1e-10).sqrt() * self.layer.operator(plain).synthesis(code)


@final
class ProtectedLayer(nn.Module):
    """A module of a model behind its sparse front.

    Args:
        front: pairs of sparse layer and normalization.
        layer: the module.
    """

    def __init__(self, front: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.front, self.layer = front, layer

    def forward(self, images: Tensor) -> Any:
        """Return the module's output for the front's, which is converted to the images' precision."""
        return self.layer(self.front(images).to(images.dtype))


def build_front(
    channels: int,
    features: Sequence[int],
    steps: Sequence[int],
    emit: Emit,
    learn: Learn,
    lambd: float,
    kernel_size: int,
) -> nn.Sequential:
    """Return a front for inputs of ``channels`` channels; the settings are those of `protect`.

    Raises:
        RecipeError: for a setting out of range.
    """
    widths = (channels,) * len(features) if emit == "reconstruction" else (channels, *features)
    front = nn.Sequential()
    for index, (width, atoms, layer_steps) in enumerate(zip(widths, features, steps, strict=False)):
        try:
            layer = SparseCode2d(
                width,
                atoms,
                kernel_size,
                lambd=lambd,
                steps=layer_steps,
                hebbian=index > 0 and learn in ("both", "local"),
                backprop=index > 0 and learn in ("both", "backprop"),
            )
        except (ValueError, TypeError) as error:
            raise RecipeError(f"sparse layer {index + 1}: {error}") from None
        front.extend([ReconstructionLayer(layer)] if emit == "reconstruction" else [layer, nn.BatchNorm2d(atoms)])
    return front
