"""Floor of an attacker who sees nothing."""

from __future__ import annotations

from typing import ClassVar

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import Attack, AttackContext
from sparseguard.core.config import settings
from sparseguard.types import AttackInputs, AttackResult, Knowledge


@settings
class MeanImage(Attack):
    """Return the mean of the auxiliary images for every image: the best constant in mean squared error."""

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "floor: the mean of the auxiliary images, for every image"
    source: ClassVar[str] = "control"
    knowledge: ClassVar[Knowledge] = Knowledge.NOTHING
    floor: ClassVar[bool] = True

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:  # noqa: ARG002
        """Repeat the mean."""
        mean = context.auxiliary.train.images.mean(0)
        return AttackResult(
            reconstructions={split: mean.expand(attacked.count, *mean.shape) for split, attacked in inputs.items()}
        )
