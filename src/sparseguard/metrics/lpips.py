"""LPIPS by torchmetrics, with the backbone's weights from a file."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal
from unittest import mock

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparseguard.core.errors import DataError
from sparseguard.metrics.feature_networks import read_weights

BATCH = 64
SMALLEST = 64
Backbone = Literal["alex", "vgg", "squeeze"]
_MODELS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


class Lpips:
    """Learned perceptual distance of two images: 0 for copies, lower is closer.

    It is torchmetrics' `LearnedPerceptualImagePatchSimilarity` with its published linear heads (version 0.1). That
    class can only download its ImageNet backbone; here the file's weights take the place of the download. Grey is
    repeated to three channels. Images with a side below 64 pixels are enlarged (bilinear) until the shorter has 64;
    such values compare with each other only.

    Args:
        weights: a safetensors file of torchvision's ``alexnet``, ``vgg16`` or ``squeezenet1_1``;
            `sparseguard.metrics.feature_networks` says how to make one.
        backbone: which of the three; ``alex`` is the one to score with.
        device: where it computes.

    Raises:
        DataError: when torchvision is not installed, or the weights are missing, unreadable or another network's.

    Source: R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.
    """

    def __init__(self, weights: Path, backbone: Backbone = "alex", device: torch.device | str = "cpu") -> None:
        try:
            models = importlib.import_module("torchvision.models")
        except ImportError:
            raise DataError('LPIPS needs torchvision. Run: pip install "sparseguard[download]"') from None
        image_metrics = importlib.import_module("torchmetrics.image.lpip")
        with torch.device("meta"):
            expected = models.get_model(_MODELS[backbone], weights=None).state_dict()
        state = _backbone_state(weights, backbone, expected)
        # Its constructor can only download: the weights of the file are returned in place of the download.
        with mock.patch.object(models.WeightsEnum, "get_state_dict", return_value=state):
            metric = image_metrics.LearnedPerceptualImagePatchSimilarity(backbone, reduction="none", normalize=True)
        self.metric = metric.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, preds: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Return the distance of each pair of images in [0, 1]."""
        self.metric.reset()
        for images, originals in zip(preds.split(BATCH), target.split(BATCH), strict=True):
            if len(images):
                self.metric.update(_enlarge(images.to(self.device)), _enlarge(originals.to(self.device)))
        scores: Tensor = self.metric.compute().reshape(-1).cpu() if len(preds) else torch.zeros(0)
        self.metric.reset()
        return scores


def _backbone_state(path: Path, backbone: Backbone, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict for the whole classifier; only the feature layers, from the file, are used."""
    state = {f"features.{name.removeprefix('features.')}": value for name, value in read_weights(path).items()}
    for name, value in expected.items():
        if not name.startswith("features."):
            state[name] = torch.zeros(value.shape)
        elif name not in state or state[name].shape != value.shape:
            raise DataError(f"{path}: not the weights of LPIPS's '{backbone}' backbone; '{name}' does not fit.")
    return {name: state[name] for name in expected}


def _enlarge(images: Tensor) -> Tensor:
    """Return three channels and at least 64 pixels a side, in [0, 1], which rounding may leave."""
    images = images.expand(-1, 3, -1, -1)
    height, width = images.shape[2:]
    if min(height, width) >= SMALLEST:
        return images.clamp(0, 1)
    scale = SMALLEST / min(height, width)
    size = round(height * scale), round(width * scale)
    return F.interpolate(images, size, mode="bilinear", align_corners=False).clamp(0, 1)
