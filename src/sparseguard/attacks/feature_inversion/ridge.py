"""Ridge regression from the raw tap to pixels, in closed form."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import Attack, AttackContext, flatten_features
from sparseguard.attacks.feature_inversion._query_augmentation import training_queries
from sparseguard.core.config import settings
from sparseguard.core.out_of_core import gather, tap_limit
from sparseguard.numerics.ridge import RidgeMap, fit_ridge
from sparseguard.types import AttackInputs, AttackResult, Knowledge

MAX_SYSTEM = 8192
"""The largest side of the system solved: features, or training images where these are fewer."""


@settings
class Ridge(Attack):
    """Invert the tap by an affine map, learned from auxiliary images and their features.

    Args:
        copies: versions of each auxiliary image that are queried (plain, mirrored, shifted by a pixel ...); fewer where
            the smaller side of the system would exceed 8,192, at least one.
        mixes: further versions, made of the halves of two images.

    Source: closed form; see docs/attacks.md for why it comes first.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "ridge regression from the raw tap to pixels, closed form"
    source: ClassVar[str] = "closed form"
    knowledge: ClassVar[Knowledge] = Knowledge.BLACK_BOX
    copies: Annotated[int, Field(ge=1, le=18)] = 8
    mixes: Annotated[int, Field(ge=0, le=8)] = 0

    def run(self, access: ModelAccess, inputs: AttackInputs, context: AttackContext) -> AttackResult:
        """Fit on auxiliary, choose the penalty on auxiliary_val, apply."""
        mapping, diagnostics = self.fit(access, context)
        shape = context.auxiliary.train.shape
        reconstructions = {
            split: mapping(features).float().clamp(0, 1).view(-1, *shape)
            for split, features in flatten_features(inputs).items()
        }
        return AttackResult(reconstructions=reconstructions, parameter_change=mapping.size, diagnostics=diagnostics)

    def fit(self, access: ModelAccess, context: AttackContext) -> tuple[RidgeMap, dict[str, float]]:
        """Query the target and fit the map; return it with diagnostics."""
        auxiliary = context.auxiliary
        features: list[Tensor] = []
        pixels: list[Tensor] = []
        for images in training_queries(auxiliary.train, self.copies, self.mixes):
            observed = access.observe(images).features.flatten(1)
            if features and min(observed.shape[1], len(observed) * (len(features) + 1)) > MAX_SYSTEM:
                break
            features.append(observed)
            pixels.append(images.flatten(1))
        val_features = access.observe(auxiliary.val).features.flatten(1)
        targets = torch.cat(pixels)
        fit = fit_ridge(
            gather(features, len(targets), tap_limit()), targets, val_features, auxiliary.val.images.flatten(1)
        )
        diagnostics = {"penalty": fit.penalty, "auxiliary_val_psnr": fit.psnr, "copies": float(len(features))}
        return fit.mapping, diagnostics
