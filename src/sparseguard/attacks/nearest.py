"""The floor of an attacker who only looks up its own images."""

from __future__ import annotations

from typing import ClassVar

import torch

from sparseguard.attacks.base import Attack, AttackContext, observed
from sparseguard.leak import Leak
from sparseguard.settings import settings
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
    knowledge: ClassVar[Knowledge] = Knowledge.OUTPUTS
    floor: ClassVar[bool] = True

    def run(self, leak: Leak, goal: Goal, context: AttackContext) -> AttackResult:
        """Search the attacker's images by feature distance."""
        public = context.public.train
        own = leak.observe(public).features.flatten(1)
        mean, spread = own.mean(0), own.std(0).clamp_min(1e-6)
        own = (own - mean) / spread
        reconstructions = {}
        for part, features in observed(goal).items():
            chunks = [torch.cdist((chunk - mean) / spread, own).argmin(1) for chunk in features.split(1024)]
            reconstructions[part] = public.batch(torch.cat(chunks))
        return AttackResult(reconstructions=reconstructions)
