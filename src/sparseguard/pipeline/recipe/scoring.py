"""Scores that a recipe asks for beyond those of single images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from sparseguard.core.config import settings


@settings
class Scoring:
    """Further scores of reconstructions; each takes time or files of its own.

    Args:
        network: network whose features compare sets of images: ``fashion-net`` (ships with the package, for
            Fashion-MNIST), ``inception`` (the 2015 weights; the score is then FID), ``torchvision``.
        model: name of the torchvision model.
        weights: safetensors file of ``inception`` or of the torchvision model.
        lpips: safetensors file of the backbone's weights for LPIPS.
        lpips_backbone: backbone these weights belong to.
        evaluators: train two classifiers on auxiliary data, and report how often they recognize the class of a
            reconstruction.
        neighbors: in class inversion, number of private images that a feature distance is a mean over.
        bounds: compute upper bounds on reconstruction.
        bounds_images: number of private images that the bounds are means over.

    Raises:
        pydantic.ValidationError: when a torchvision network has no model or weights, or another network has some.
    """

    network: Literal["none", "fashion-net", "inception", "torchvision"] = "none"
    model: str | None = None
    weights: Path | None = None
    lpips: Path | None = None
    lpips_backbone: Literal["alex", "vgg", "squeeze"] = "alex"
    evaluators: bool = False
    neighbors: Annotated[int, Field(ge=1)] = 1
    bounds: bool = False
    bounds_images: Annotated[int, Field(ge=2)] = 128

    @pydantic.model_validator(mode="after")
    def _is_complete(self) -> Scoring:
        if self.network == "torchvision" and (self.model is None or self.weights is None):
            raise ValueError("network 'torchvision' needs model= and weights=")
        if self.model is not None and self.network != "torchvision":
            raise ValueError("model is a setting of network = 'torchvision'")
        if self.weights is not None and self.network not in ("torchvision", "inception"):
            raise ValueError("weights are a setting of network = 'torchvision' or 'inception'")
        return self
