"""Small worlds attacks are tried in: smooth images, taps whose inverse is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparseguard.attacks import Attack, AttackContext
from sparseguard.attacks.access import ModelAccess
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import StagedModel
from sparseguard.types import AttackInput, AttackResult, AuxiliaryData, ImageSet

CPU = torch.device("cpu")


def smooth(count: int, seed: int, side: int = 8) -> ImageSet:
    """Images of four random numbers each, spread smoothly, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 2, 2, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=True)
    return ImageSet(pixels=pixels, labels=torch.zeros(count, dtype=torch.int64), classes=("only",))


def full_range(count: int, seed: int) -> ImageSet:
    """Smooth images that touch 0 and 1, so that mean and contrast can be told from what is left without them."""
    images = smooth(count, seed)
    flat = images.pixels.flatten(1)
    low, high = flat.amin(1).view(-1, 1, 1, 1), flat.amax(1).view(-1, 1, 1, 1)
    return ImageSet(pixels=(images.pixels - low) / (high - low), labels=images.labels, classes=images.classes)


def linear(matrix: Tensor) -> StagedModel:
    """A target whose tap is the product of the pixels with a matrix ``(d, pixels)``."""
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(matrix)
    return StagedModel({"first": nn.Sequential(nn.Flatten(), layer)}).eval().requires_grad_(False)


def attacked(
    attack: Attack,
    target: StagedModel,
    *,
    stage: str = "first",
    train: int = 60,
    private: ImageSet | None = None,
    images: Callable[[int, int], ImageSet] = smooth,
    **more: Any,
) -> tuple[AttackResult, dict[str, Tensor]]:
    """Run an attack on ``target``; return its result and the originals."""
    auxiliary = AuxiliaryData(train=images(train, 1), val=images(20, 2))
    access = ModelAccess(target, tap="t", stage=stage, knowledge=attack.knowledge, seed=0, device=CPU, released=target)
    parts = {"private": private or images(10, 3), "auxiliary_val": auxiliary.val}
    inputs = {
        part: AttackInput(count=len(images), observation=access.observe(images)) for part, images in parts.items()
    }
    context = AttackContext(auxiliary=auxiliary, seed=0, device=CPU, progress=Silent(), label="toy", **more)
    result, _ = attack(access, inputs, context)
    return result, {part: batch.images for part, batch in parts.items()}


def error(images: Tensor, truth: Tensor) -> float:
    """Mean squared error."""
    return float((images - truth).square().mean())
