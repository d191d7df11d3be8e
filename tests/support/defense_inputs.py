"""Images, a model and a batch on which defenses are tried alone."""

from __future__ import annotations

from typing import Any

import torch

from sparseguard.core.staged_model import StagedModel
from sparseguard.defenses.base import Budget, Context
from sparseguard.targets import BACKBONES
from sparseguard.types import BatchContext, ImageSet

BLUEPRINT = BACKBONES["linear-shallow"](width=16).blueprint(3)


def part(count: int = 60) -> ImageSet:
    pixels = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return ImageSet(pixels=pixels, labels=torch.arange(count) % 3, classes=("a", "b", "c"))


def prepared(defense: Any, seed: int = 0) -> Any:
    budget = Budget(images=54, batch_size=10, epochs=2)
    return defense.prepare(Context(private=part(), auxiliary=part(), blueprint=BLUEPRINT, seed=seed, budget=budget))


def built() -> StagedModel:
    return BLUEPRINT.build((1, 8, 8), len)


def step(images: Any, labels: Any, logits: Any, own_count: int | None) -> BatchContext:
    return BatchContext(
        images=images, labels=labels, outputs={}, logits=logits, state={}, epoch=0, phase="train", own_count=own_count
    )
