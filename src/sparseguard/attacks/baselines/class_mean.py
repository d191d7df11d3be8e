"""The floor of an attacker who is told the class and nothing else."""

from __future__ import annotations

from typing import ClassVar

import torch

from sparseguard.attacks.access import Leak
from sparseguard.attacks.base import Attack, AttackContext
from sparseguard.core.config import settings
from sparseguard.core.errors import TrainingError
from sparseguard.types import AttackResult, Goal, Knowledge


@settings
class ClassMean(Attack):
    """Answer with the mean of the attacker's images of the true class; of all images where there is none."""

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "floor: the mean of the attacker's images of the true class"
    source: ClassVar[str] = "control"
    knowledge: ClassVar[Knowledge] = Knowledge.LABEL
    floor: ClassVar[bool] = True

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:  # noqa: ARG002
        """Look the means up by label."""
        auxiliary = context.auxiliary.train
        images = auxiliary.images
        means = torch.stack(
            [
                images[auxiliary.labels == label].mean(0) if (auxiliary.labels == label).any() else images.mean(0)
                for label in range(len(auxiliary.classes))
            ]
        )
        reconstructions = {}
        for part, attacked in goal.items():
            if attacked.labels is None:
                raise TrainingError(f"the attack needs the labels of '{part}'.")
            reconstructions[part] = means[attacked.labels]
        return AttackResult(reconstructions=reconstructions)
