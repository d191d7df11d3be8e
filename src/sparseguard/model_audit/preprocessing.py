"""Preprocessing between images in [0, 1] and a user's own model: normalization and precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from sparseguard.core.errors import DataError, RecipeError


@final
class Preprocessed(nn.Module):
    """A model behind its own normalization.

    Args:
        model: from normalized images to logits.
        mean: subtracted, one value a channel, or one for all.
        std: divided by.
        dtype: of the normalized images; None: that of the images.

    Raises:
        RecipeError: for another number of means than of deviations, or deviations that are not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean:
            raise RecipeError(f"mean and std: {len(mean)} and {len(std)} values; give one of each a channel.")
        if not all(math.isfinite(value) for value in mean):
            raise RecipeError(f"mean {list(mean)}: expected finite numbers.")
        if not all(math.isfinite(value) and value > 0 for value in std):
            raise RecipeError(f"std {list(std)}: expected numbers above 0; images are divided by them.")
        self.model, self.dtype = model, dtype
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images in [0, 1].

        Raises:
            DataError: for images of another number of channels than there are means.
        """
        channels, count = images.shape[1], self.mean.numel()
        if count not in (1, channels):
            raise DataError(f"mean and std have {count} values, images have {channels} channels; give one a channel.")
        logits: Tensor = self.model(((images - self.mean) / self.std).to(self.dtype or images.dtype))
        return logits

    def convert_to(self, dtype: torch.dtype) -> Preprocessed:
        """Return the same model with its images converted to another precision."""
        return Preprocessed(self.model, self.mean.flatten().tolist(), self.std.flatten().tolist(), dtype)


def unwrap_model(model: nn.Module) -> nn.Module:
    """Return the user's own model inside every `Preprocessed`."""
    while isinstance(model, Preprocessed):
        model = model.model
    return model


def convert_inputs(model: nn.Module) -> nn.Module:
    """Return a model that takes float32 images and converts them to the precision of the user's weights."""
    dtypes = [weight.dtype for weight in unwrap_model(model).parameters() if weight.is_floating_point()]
    if not dtypes or dtypes[0] == torch.float32:
        return model
    wrapped = model if isinstance(model, Preprocessed) else Preprocessed(model, [0.0], [1.0])
    return wrapped.convert_to(dtypes[0]).eval()
