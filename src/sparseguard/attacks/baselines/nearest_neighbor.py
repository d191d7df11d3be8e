"""The floor of an attacker who only looks up its own images."""

from __future__ import annotations

from typing import ClassVar

import torch

from sparseguard.attacks.access import Leak
from sparseguard.attacks.base import Attack, AttackContext, observed
from sparseguard.attacks.feature_inversion._train_decoder import standardizing
from sparseguard.core.config import settings
from sparseguard.core.out_of_core import row_chunks, standardized
from sparseguard.types import AttackResult, Goal, Knowledge


@settings
class NearestPublicImage(Attack):
    """Answer with the attacker's image whose own leak is nearest (Euclidean, each feature standardized).

    It returns real images, so what it gets right is what the attacker's images already have in common with the private
    ones.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "floor: the attacker's image whose leak is nearest"
    source: ClassVar[str] = "control"
    knowledge: ClassVar[Knowledge] = Knowledge.BLACK_BOX
    floor: ClassVar[bool] = True

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Search the attacker's images by feature distance."""
        auxiliary = context.auxiliary.train
        own = leak.observe(auxiliary).features.flatten(1)
        mean, spread = standardizing(own)
        own = standardized(own, mean, spread)
        norms = torch.cat([own[some].square().sum(1) for some in row_chunks(own)])
        reconstructions = {}
        for part, features in observed(goal).items():
            places = [
                (norms - 2 * ((features[some] - mean) / spread) @ own.T).argmin(1) for some in row_chunks(features)
            ]
            reconstructions[part] = auxiliary.batch(torch.cat(places))
        return AttackResult(reconstructions=reconstructions)
