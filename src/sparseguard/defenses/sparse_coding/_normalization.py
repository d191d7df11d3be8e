"""Normalization after a layer of codes."""

from __future__ import annotations

from typing import Literal

from torch import nn

Normalization = Literal["batch", "group", "none"]

MIXES = "its batch normalization mixes the images of a batch: set normalization = 'group'"
"""Why batch normalization cannot be combined with gradients of single images."""


def build_normalization(kind: Normalization, channels: int) -> nn.Module:
    """Return batch normalization, normalization of each image alone (`GroupNorm` of one group), or nothing."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(1, channels) if kind == "group" else nn.Identity()
