"""Fréchet distance of a prior's samples to the images it learns, and of real images to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sparseguard.core.seeding import derive
from sparseguard.metrics import FashionNet, frechet_distance
from sparseguard.types import ImageSet

MAX_IMAGES = 2048
"""Images of each kind that a distance compares, at most."""
SIDES = (8, 4, 2, 1)

Features = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n d"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class FrechetEvaluator:
    """The Fréchet distance of fakes to one half of the images, taken at the number of images in that half.

    Args:
        name: what tables call the distance, with its features.
        features: from images to what is compared.
        real: features of the half.
        between_halves: the distance of the other half, which are real images, to that half at the same number.
    """

    name: str
    features: Features
    real: Float[Tensor, "n d"]
    between_halves: float

    def __call__(self, fakes: Float[Tensor, "n c h w"]) -> float:
        """Return the distance of the first fakes, as many as there are real images."""
        return _distance(self.real, self.features(fakes[: len(self.real)]))


def build_evaluator(images: ImageSet, device: torch.device) -> FrechetEvaluator | None:
    """Return the evaluator of samples by halves of ``images``, 2,048 each at most; None for fewer than four images.

    Features are FashionNet's for grey images of 28 x 28, else pixels of the images made smaller by averages, to 8 a
    side or as many fewer as it takes for the covariance of one half to have full rank.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(derive(purpose="halves of a prior")))
    half = min(len(images) // 2, MAX_IMAGES)
    if half < 2:
        return None
    name, features = _features(images.shape, half, device)
    first, second = (features(images.batch(order[start : start + half])) for start in (0, half))
    return FrechetEvaluator(name=f"FD({name})", features=features, real=first, between_halves=_distance(first, second))


def describe_distance(evaluator: FrechetEvaluator | None) -> str:
    """Return the sentence on the distance in a prior's history."""
    if evaluator is None:
        return "There were too few images for a distance."
    n = len(evaluator.real)
    return (
        f"The distance in its history is {evaluator.name} of {n:,} samples to {n:,} of these images; {n:,} others of "
        f"these images have {evaluator.between_halves:.4g}."
    )


def _features(shape: tuple[int, int, int], half: int, device: torch.device) -> tuple[str, Features]:
    network = FashionNet(device)
    if network.refuses(shape) is None and half >= network.minimum:
        return network.name, network.features
    sides = [(min(side, shape[1]), min(side, shape[2])) for side in SIDES]
    height, width = next(((h, w) for h, w in sides if shape[0] * h * w < half), sides[-1])

    def pixels(images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, (height, width)).flatten(1)

    return f"pixels {height}x{width}", pixels


def _distance(real: Tensor, generated: Tensor) -> float:
    value = frechet_distance(generated, real, 2).value
    assert value is not None  # there are two images of each kind at least
    return value
