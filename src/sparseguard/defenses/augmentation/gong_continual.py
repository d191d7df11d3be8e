"""Planted misleading features, and weights held where they serve the private images."""

from __future__ import annotations

from typing import Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor

from sparseguard.core.config import settings
from sparseguard.core.seeding import derive
from sparseguard.defenses.augmentation._ewc import consolidation, diagonal_fisher
from sparseguard.defenses.augmentation.gong import GONG, MISLEAD, Misleading
from sparseguard.defenses.base import State
from sparseguard.types import BatchContext, EpochContext

FISHER, ANCHOR = "fisher/", "anchor/"


@final
@settings
class GongContinual(Misleading):
    r"""Train as `gong` does, and hold weights that matter for private images by elastic weight consolidation.

    .. math:: L = L_\text{gong} + \frac{\lambda}{2} \sum_i F_i (\theta_i - \theta^*_i)^2

    When the second phase begins, the weights :math:`\theta^*` are kept, and the diagonal of the Fisher information is
    measured: the mean squared gradient :math:`F_i` of the log-likelihood of single private images, of labels drawn
    from the model's own answers. From then on, weights are held the more firmly the more they matter.

    Args:
        learn: share of the epochs in the first phase, in [0, 1). It has one epoch at least, and so has the second; a
            training of one epoch has only the second.
        weight_planted: of the planted images' cross-entropy; >= 0.
        weight_inverted: of the term on inverted images; >= 0.
        ratio: planted images for each private image of a batch, and as many inverted ones; > 0.
        epochs: passes of the GAN over the public images.
        draws: images drawn for each that is planted.
        inverted: how many inverted images there are, over all classes.
        steps: of Adam on the noise of an inverted image.
        hold: lambda of the consolidation; >= 0.
        fisher_images: private images that the Fisher information is measured on, at most.

    Raises:
        RecipeError: when the public images are all of one class.

    Source: Gong et al. 2023, "A GAN-based defense framework against model inversion attacks" (IEEE TIFS);
    consolidation: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks" (PNAS), equation 3.

    Differs: as for `gong`. The abstract speaks of continual learning that improves the utility; that it is elastic
    weight consolidation is our reading, and the value of its weight ours.

    Limits: as for `gong`. What holds the weights for the private images also holds off the misleading features.

    Released code: as for `gong`; the scripts of the two differ by a constant added to the loss, and compute the same.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "gong, with elastic weight consolidation to keep the accuracy"
    source: ClassVar[str] = f"{GONG}; Kirkpatrick et al. 2017 (PNAS)"
    hold: Annotated[float, Field(ge=0)] = 3000.0
    fisher_images: Annotated[int, Field(ge=1)] = 500

    def find_unaccounted_access(self) -> str:
        """Say what else it learns from private images."""
        return "its Fisher information is measured on private images"

    def on_epoch_start(self, context: EpochContext) -> State:
        """Keep the weights and measure their Fisher information when misleading begins, besides inverting the model."""
        found = dict(super().on_epoch_start(context))
        if not found:
            return found
        random = torch.Generator().manual_seed(derive(purpose="fisher information", seed=context.seed))
        some = torch.randperm(len(context.images), generator=random)[: self.fisher_images]
        images = context.images.batch(some).to(context.device)
        with torch.no_grad():
            answers = torch.cat([context.model(part).softmax(1).cpu() for part in images.split(100)])
        labels = torch.multinomial(answers, 1, generator=random).squeeze(1).to(context.device)
        fisher = diagonal_fisher(context.model, images, labels)
        weights = dict(context.model.named_parameters())
        return {
            **found,
            **{f"{FISHER}{name}": value for name, value in fisher.items()},
            **{f"{ANCHOR}{name}": weights[name].detach().clone() for name in fisher},
        }

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Add what holds the weights."""
        misleading = super().penalty(batch)
        if batch.phase != MISLEAD or batch.model is None:
            return misleading
        holding = self.hold * consolidation(batch.model, _part(batch.state, FISHER), _part(batch.state, ANCHOR))
        return holding if misleading is None else misleading + holding


def _part(state: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
