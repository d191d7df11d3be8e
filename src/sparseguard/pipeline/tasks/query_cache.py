"""Cache of a deterministic model's outputs, for queries that several attacks share."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import torch
from torch import Tensor

from sparseguard.core.out_of_core import tap_limit
from sparseguard.core.staged_model import StagedModel
from sparseguard.types import Released


class CachedModel:
    """A model that caches its outputs, for all taps of a recipe at once.

    Attacks of one case send the same images again and again, and a tap further down repeats the work of the one before
    it. Only for models that answer equal queries equally.

    Args:
        model: the released model.
        stages: the stages that are taps.
        budget: bytes of answers kept; beyond it queries are computed every time. None: half of what may be held of a
            tap's outputs.
    """

    def __init__(self, model: StagedModel, stages: Collection[str], budget: int | None = None) -> None:
        self._model = model
        self._stages = set(stages)
        self._left = tap_limit() // 2 if budget is None else budget
        self._known: dict[bytes, dict[str, Tensor]] = {}

    def forward_to(self, images: Tensor, stage: str) -> Tensor:
        """Return the output of ``stage``."""
        key = hashlib.sha256(images.detach().cpu().contiguous().numpy().tobytes()).digest()
        if key in self._known and stage in self._known[key]:
            return self._known[key][stage]
        outputs = {name: value for name, value in self._model.outputs(images).items() if name in self._stages | {stage}}
        size = sum(value.numel() * value.element_size() for value in outputs.values())
        if size <= self._left:
            self._left -= size
            self._known[key] = outputs
        return outputs[stage]


@torch.no_grad()
def cache_outputs(model: StagedModel, images: Tensor, stages: Collection[str]) -> Released:
    """Return ``model`` with a cache if it returns equal outputs for ``images`` twice at every stage."""
    first, second = model.outputs(images), model.outputs(images)
    deterministic = all(torch.equal(first[name], second[name]) for name in first)
    return CachedModel(model, stages) if deterministic else model
