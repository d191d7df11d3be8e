"""Released target as the cases that share it use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparseguard.pipeline.store import TrainingFacts
from sparseguard.targets import Target
from sparseguard.types import Released


@dataclass(frozen=True, kw_only=True, eq=False)
class ReleasedTarget:
    """A released target.

    Args:
        key: the target's key.
        target: the released target.
        model: the model that answers queries: the target's, or one that caches its answers.
        facts: of its training.
        defense_figures: figures the defense computes of the released model, by name.
    """

    key: str
    target: Target
    model: Released
    facts: TrainingFacts
    defense_figures: Mapping[str, float] = field(default_factory=dict)
