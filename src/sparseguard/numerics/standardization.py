"""Standardization of features: mean and deviation of each feature, or of each channel of maps."""

from __future__ import annotations

from torch import Tensor

from sparseguard.core.out_of_core import mean_and_std

LEAST = 1e-6
"""Least deviation that is divided by."""


def feature_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each feature ``(n, d)``, or channel ``(n, c, h, w)``, to broadcast."""
    mean, deviation = mean_and_std(features, (0, 2, 3) if features.ndim == 4 else (0,))
    return mean.to(features.dtype), deviation.to(features.dtype).clamp_min(LEAST)
