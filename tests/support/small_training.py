"""Training a small target in a second, and a training that is killed between two epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import StagedModel
from sparseguard.data import DATASETS
from sparseguard.defenses.base import Defense
from sparseguard.targets import BACKBONES, Fit, train

PRIVATE = DATASETS["fashion-mini"](private=100).load().private


def built(defense: Defense, width: int = 16) -> StagedModel:
    blueprint = defense.edit_blueprint(BACKBONES["linear-shallow"](width=width).blueprint(10), {})
    return blueprint.build(PRIVATE.shape, lambda stage: len(stage))


def fitted(defense: Defense, fit: Fit, model: StagedModel | None = None, **options: Any) -> tuple[StagedModel, Any]:
    model = model or built(defense)
    options = {"progress": Silent(), **options}
    run = train(model, defense, {}, PRIVATE, fit, seed=1, device=torch.device("cpu"), label="t", **options)
    return model, run


class KilledError(Exception):
    """Stands for a kill between two epochs."""


class Interrupted(Silent):
    """Kills the training in its eighth step."""

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        seen = [0]

        def advance(steps: int) -> None:
            seen[0] += steps
            if seen[0] == 8:
                raise KilledError

        yield advance
