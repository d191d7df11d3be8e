"""The floor of an attacker who sees nothing."""

from __future__ import annotations

from typing import ClassVar

from sparseguard.attacks.access import Leak
from sparseguard.attacks.base import Attack, AttackContext
from sparseguard.core.config import settings
from sparseguard.types import AttackResult, Goal, Knowledge


@settings
class MeanImage(Attack):
    """Answer every query with the mean of the attacker's images: the best constant in mean squared error."""

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "floor: the mean of the attacker's images, whatever was asked"
    source: ClassVar[str] = "control"
    knowledge: ClassVar[Knowledge] = Knowledge.NOTHING
    floor: ClassVar[bool] = True

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:  # noqa: ARG002
        """Repeat the mean."""
        mean = context.auxiliary.train.images.mean(0)
        return AttackResult(
            reconstructions={part: mean.expand(attacked.count, *mean.shape) for part, attacked in goal.items()}
        )
