"""Small worlds for attacks on classes: targets whose answers are known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import ClassAttack, ClassContext, NoPartialResults
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import StagedModel
from sparseguard.types import ClassResult, TargetClasses
from support.attacks import CPU
from support.priors import tiny_prior

SHAPE = (1, 12, 12)
GOAL = TargetClasses(indices=(0, 2), names=("a", "b", "c"), shape=SHAPE, flips_keep_class=True)


def classifier(*front: nn.Module, features: int = 144, seed: int = 0) -> StagedModel:
    """A linear classifier of three classes, behind other layers if there are any."""
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Flatten(), nn.Linear(features, 3))
    return StagedModel({"front": nn.Sequential(*front), "head": head}).eval().requires_grad_(False)


def run(attack: ClassAttack, target: StagedModel, **more: Any) -> ClassResult:
    classes = more.pop("classes", GOAL)
    access = ModelAccess(
        target, tap="logits", stage="head", knowledge=attack.knowledge, seed=0, device=CPU, released=target
    )
    options = {"prior": tiny_prior(), "seed": 0, "partial_results": NoPartialResults(), **more}
    return attack(access, classes, ClassContext(device=CPU, progress=Silent(), label="toy", **options))


def confidence(target: StagedModel, images: Tensor) -> Tensor:
    """What the target says of the images, averaged with their mirror images."""
    return (target(images).softmax(1) + target(images.flip(3)).softmax(1)) / 2
