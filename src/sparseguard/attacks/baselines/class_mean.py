"""Floor of an attacker who knows the class and nothing else."""

from __future__ import annotations

from typing import ClassVar

import torch

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import Attack, AttackContext
from sparseguard.core.config import settings
from sparseguard.core.errors import TrainingError
from sparseguard.types import AttackInputs, AttackResult, Knowledge


@settings
class ClassMean(Attack):
    """Return the mean of the auxiliary images of the true class; of all images where there is none."""

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "floor: the mean of the auxiliary images of the true class"
    source: ClassVar[str] = "control"
    knowledge: ClassVar[Knowledge] = Knowledge.LABEL
    floor: ClassVar[bool] = True

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:  # noqa: ARG002
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
        for split, attacked in inputs.items():
            if attacked.labels is None:
                raise TrainingError(f"the attack needs the labels of '{split}'.")
            reconstructions[split] = means[attacked.labels]
        return AttackResult(reconstructions=reconstructions)
