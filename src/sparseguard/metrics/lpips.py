"""LPIPS, when its backbone's weights are given by path."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparseguard.core.errors import DataError
from sparseguard.metrics.feature_networks import read_weights

BATCH = 64
SMALLEST = 64
Backbone = Literal["alex", "vgg", "squeeze"]


class Lpips:
    """Learned perceptual distance of two images: 0 for copies, lower is closer.

    The published linear heads (version 0.1) come with torchmetrics; the ImageNet backbone is torchvision's and given by
    path, so that nothing is downloaded. Grey is repeated to three channels. Images with a side below 64 pixels are
    enlarged (bilinear) until the shorter has 64; such values compare with each other only.

    Args:
        weights: a safetensors file of torchvision's ``alexnet``, ``vgg16`` or ``squeezenet1_1``; how to make one is
            said in `sparseguard.metrics.feature_networks`.
        backbone: which of the three; ``alex`` is the one to score with.
        device: where it computes.

    Raises:
        DataError: when torchvision is not installed, or the weights are missing, unreadable or another network's.

    Source: R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.
    """

    def __init__(self, weights: Path, backbone: Backbone = "alex", device: torch.device | str = "cpu") -> None:
        try:
            importlib.import_module("torchvision")
        except ImportError:
            raise DataError('LPIPS needs torchvision. Run: pip install "sparseguard[download]"') from None
        # torchmetrics' class without the underscore would download the backbone
        theirs = importlib.import_module("torchmetrics.functional.image.lpips")
        network: nn.Module = theirs._LPIPS(net=backbone, pnet_rand=True)
        given = {name.removeprefix("features."): value for name, value in read_weights(weights).items()}
        wanted = network.net.state_dict()  # type: ignore[union-attr]
        state = {name: given.get(re.sub(r"^slices?\.?\d+\.", "", name)) for name in wanted}
        wrong = [name for name, value in state.items() if value is None or value.shape != wanted[name].shape]
        if wrong:
            raise DataError(f"{weights}: not the weights of LPIPS's '{backbone}' backbone; '{wrong[0]}' does not fit.")
        network.net.load_state_dict(state)  # type: ignore[union-attr]
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(
        self, reconstructions: Float[Tensor, "n c h w"], originals: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, " n"]:
        """Return the distance of each pair of images in [0, 1]."""
        pairs = zip(reconstructions.split(BATCH), originals.split(BATCH), strict=True)
        scores = [
            self.network(*(_enlarged(batch.to(self.device)) for batch in pair), normalize=True).view(-1).cpu()
            for pair in pairs
            if len(pair[0])
        ]
        return torch.cat(scores) if scores else torch.zeros(0)


def _enlarged(images: Tensor) -> Tensor:
    images = images.expand(-1, 3, -1, -1)
    height, width = images.shape[2:]
    if min(height, width) >= SMALLEST:
        return images
    scale = SMALLEST / min(height, width)
    return F.interpolate(images, (round(height * scale), round(width * scale)), mode="bilinear", align_corners=False)
