"""What an attack is: the author writes `run`, the library owns the call around it and its checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from sparseguard.errors import TrainingError
from sparseguard.leak import Leak
from sparseguard.progress import Progress
from sparseguard.types import AttackResult, Goal, Knowledge, Public


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackContext:
    """What every attack is given besides the leak.

    Args:
        public: the attacker's own images.
        seed: of the attack's own randomness.
        device: where to train.
        progress: told how far it is.
        label: its name in `progress`.
    """

    public: Public
    seed: int
    device: torch.device
    progress: Progress
    label: str


class Attack(ABC):
    """Settings of an attack on instances: reconstruct each image from what leaked of it."""

    revision: ClassVar[int]
    summary: ClassVar[str]
    source: ClassVar[str]
    knowledge: ClassVar[Knowledge]
    floor: ClassVar[bool] = False
    """Whether this is what anybody could do without the leak's help: a floor, not an attack."""

    @abstractmethod
    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Reconstruct every part of the goal."""

    @final
    def __call__(self, leak: Leak, goal: Goal, context: AttackContext) -> tuple[AttackResult, float]:
        """Run the attack; return its result clipped to [0, 1], and how far outside the furthest value was.

        Raises:
            TrainingError: when a reconstruction is not finite or has a wrong shape; neither is ever scored.
        """
        result = self.run(leak, goal, context)
        size = context.public.train.shape
        outside = 0.0
        clipped = {}
        for part, attacked in goal.items():
            images = result.reconstructions.get(part)
            if images is None or images.shape != (attacked.count, *size):
                shape = None if images is None else tuple(images.shape)
                raise TrainingError(f"{context.label}: '{part}' needs {(attacked.count, *size)} images, got {shape}.")
            if not torch.isfinite(images).all():
                raise TrainingError(f"{context.label}: reconstructions of '{part}' are not finite.")
            outside = max(outside, float((images - images.clamp(0, 1)).abs().max()))
            clipped[part] = images.clamp(0, 1)
        return replace(result, reconstructions=clipped), outside


def observed(goal: Goal) -> dict[str, torch.Tensor]:
    """Return what leaked of each part, flattened to ``(n, d)``."""
    features = {}
    for part, attacked in goal.items():
        if attacked.observation is None:
            raise TrainingError(f"the attack needs an observation of '{part}'.")
        features[part] = attacked.observation.features.flatten(1)
    return features
