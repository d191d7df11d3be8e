"""Floor of an attacker who looks up its own images."""

from __future__ import annotations

from typing import ClassVar

import torch

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import Attack, AttackContext, flatten_features
from sparseguard.core.config import settings
from sparseguard.core.out_of_core import row_chunks, standardize_rows
from sparseguard.numerics.standardization import feature_statistics
from sparseguard.types import AttackInputs, AttackResult, Knowledge


@settings
class NearestAuxiliaryImage(Attack):
    """Return the auxiliary image whose features are nearest (Euclidean, each feature standardized).

    It returns real images, so its score shows how much auxiliary and private images have in common.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "floor: the auxiliary image with the nearest features"
    source: ClassVar[str] = "control"
    knowledge: ClassVar[Knowledge] = Knowledge.BLACK_BOX
    floor: ClassVar[bool] = True

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:
        """Search the auxiliary images by feature distance."""
        auxiliary = context.auxiliary.train
        own = access.observe(auxiliary).features.flatten(1)
        mean, deviation = feature_statistics(own)
        own = standardize_rows(own, mean, deviation)
        norms = torch.cat([own[chunk].square().sum(1) for chunk in row_chunks(own)])
        reconstructions = {}
        for split, features in flatten_features(inputs).items():
            indices = [
                (norms - 2 * ((features[chunk] - mean) / deviation) @ own.T).argmin(1) for chunk in row_chunks(features)
            ]
            reconstructions[split] = auxiliary.batch(torch.cat(indices))
        return AttackResult(reconstructions=reconstructions)
