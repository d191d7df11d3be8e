"""Laplace noise on bounded features at the tap, with the NoPeek term."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.staged_model import Blueprint, Noise, StagedModel
from sparseguard.defenses.base import Defense, State
from sparseguard.numerics.dependence import distance_correlation
from sparseguard.types import BatchContext

BOUNDED, NOISED = "bounded", "noised"


@settings
class LaplaceNoise(Defense):
    r"""Bound the features at the tap to [-1, 1] and add Laplace noise, in training and at every query.

    .. math:: \tilde z = \tanh(z) + \epsilon, \quad \epsilon_i \sim \mathrm{Laplace}(0, b) \text{ i.i.d.}, \qquad
        L = \mathrm{CE} + \alpha \, \mathrm{dCor}(x, \tanh(z))

    Two stages follow the stage of the tap: `bounded`, the hyperbolic tangent, and `noised`, whose output is the new tap
    and the input of the rest of the model. With `alpha` above 0, training also lowers the distance correlation between
    the images of a batch and their bounded features before the noise (NoPeek).

    Args:
        scale: b of the noise, in units of the bounded features, above 0. Its standard deviation is 1.41 b.
        alpha: weight of the distance correlation, in nats; 0: none.

    Source: Titcombe, Hall, Papadopoulos, Romanini, Practical Defences Against Model Inversion Attacks for Split Neural
    Networks, 2021; the term of `alpha`: Vepakomma, Singh, Gupta, Raskar, NoPeek, 2020. Their code takes b from 0.1 to
    5 and `alpha` from 0.05 to 1.

    Differs: the released code of Titcombe et al. shows the attacker the tensor without the noise, and computes the
    correlation from squared distances. Here the attacker sees the noisy features, and distances are not squared.

    Limits: the noise is drawn anew at every query, so n queries average it down by the root of n. No differential
    privacy is claimed: each value is bounded, but many values together reveal much. The distance
    correlation of a batch is a penalty, not a guarantee.

    Released code: noise of scale 0.5 or 1 is added only in training mode, so in most scripts (12 of 15) not at test
    time or under attack; the tensor is not bounded; there is no distance correlation.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "Laplace noise on bounded features at the tap, in training and at every query; NoPeek"
    source: ClassVar[str] = "Titcombe et al. 2021"
    acts_at_tap: ClassVar[bool] = True
    randomizes: ClassVar[bool] = True
    scale: Annotated[float, Field(gt=0)] = 0.5
    alpha: Annotated[float, Field(ge=0)] = 0.0

    def find_unaccounted_access(self) -> str | None:
        """Return the distance correlation, which depends on a whole batch."""
        return "its distance correlation couples the images of a batch" if self.alpha > 0 else None

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Insert the bound and the noise after the tap."""
        bounded = blueprint.insert_after_tap(BOUNDED, lambda _: nn.Tanh())
        return bounded.insert_after_tap(NOISED, lambda _: Noise("laplace", self.scale))

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return the weighted distance correlation."""
        if self.alpha == 0:
            return None
        images, bounded = batch.images[batch.own], batch.outputs[BOUNDED][batch.own]
        return self.alpha * distance_correlation(images.flatten(1), bounded.flatten(1))

    @torch.no_grad()
    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Check the bound; another check compares queries."""
        for stage in (BOUNDED, NOISED):
            if stage not in model.stages:
                return f"the model has no stage '{stage}'"
        largest = float(model.forward_to(images, BOUNDED).abs().max())
        return None if largest <= 1 else f"the features before the noise are not bounded by 1, they reach {largest:.3g}"
