"""Misleading features as in `gong`, with elastic weight consolidation."""

from __future__ import annotations

from typing import Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor

from sparseguard.core.config import settings
from sparseguard.core.seeding import derive
from sparseguard.defenses.augmentation._ewc import compute_consolidation, compute_fisher_diagonal
from sparseguard.defenses.augmentation.gong import GONG, MISLEAD, Misleading
from sparseguard.defenses.base import State
from sparseguard.types import BatchContext, EpochContext

FISHER, ANCHOR = "fisher/", "anchor/"


@final
@settings
class GongContinual(Misleading):
    r"""Train as `gong` does, and keep weights that matter for private images by elastic weight consolidation.

    .. math:: L = L_\text{gong} + \frac{\lambda}{2} \sum_i F_i (\theta_i - \theta^*_i)^2

    At the start of the second phase, the defense stores the weights :math:`\theta^*` and measures the diagonal of the
    Fisher information: the mean squared gradient :math:`F_i` of the log-likelihood of single private images, with
    labels drawn from the model's own outputs. From then on, the penalty on a change grows with a weight's importance.

    Args:
        learn: fraction of the epochs in the first phase, in [0, 1). Each phase has at least one epoch; a training of
            one epoch has only the second phase.
        weight_planted: of the planted images' cross-entropy; >= 0.
        weight_inverted: of the term on inverted images; >= 0.
        ratio: planted images for each private image of a batch, and as many inverted ones; > 0.
        epochs: passes of the GAN over the auxiliary images.
        draws: images drawn for each planted one.
        inverted: number of inverted images over all classes.
        steps: of Adam on the noise of an inverted image.
        hold: lambda of the consolidation; >= 0.
        fisher_images: number of private images for the Fisher information, at most.

    Raises:
        RecipeError: when the auxiliary images are all of one class.

    Source: Gong et al. 2023, "A GAN-based defense framework against model inversion attacks" (IEEE TIFS);
    consolidation: Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks" (PNAS), equation 3.

    Differs: as for `gong`. The abstract speaks of continual learning that improves the utility; elastic weight
    consolidation is our reading of it, and the value of its weight is ours.

    Limits: as for `gong`. The consolidation also weakens the misleading features.

    Released code: as for `gong`; the scripts of the two differ by a constant added to the loss and compute the same.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "gong, with elastic weight consolidation to keep the accuracy"
    source: ClassVar[str] = f"{GONG}; Kirkpatrick et al. 2017 (PNAS)"
    hold: Annotated[float, Field(ge=0)] = 3000.0
    fisher_images: Annotated[int, Field(ge=1)] = 500

    def find_unaccounted_access(self) -> str:
        """Return that private images give the Fisher information."""
        return "its Fisher information is measured on private images"

    def on_epoch_start(self, context: EpochContext) -> State:
        """Invert the model, store its weights and measure their Fisher information at the start of the second phase."""
        images = dict(super().on_epoch_start(context))
        if not images:
            return images
        random = torch.Generator().manual_seed(derive(purpose="fisher information", seed=context.seed))
        subset = torch.randperm(len(context.images), generator=random)[: self.fisher_images]
        samples = context.images.batch(subset).to(context.device)
        with torch.no_grad():
            probabilities = torch.cat([context.model(chunk).softmax(1).cpu() for chunk in samples.split(100)])
        labels = torch.multinomial(probabilities, 1, generator=random).squeeze(1).to(context.device)
        fisher = compute_fisher_diagonal(context.model, samples, labels)
        weights = dict(context.model.named_parameters())
        return {
            **images,
            **{f"{FISHER}{name}": value for name, value in fisher.items()},
            **{f"{ANCHOR}{name}": weights[name].detach().clone() for name in fisher},
        }

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return `gong`'s penalty and the consolidation."""
        misleading = super().penalty(batch)
        if batch.phase != MISLEAD or batch.model is None:
            return misleading
        consolidation = self.hold * compute_consolidation(
            batch.model, _select(batch.state, FISHER), _select(batch.state, ANCHOR)
        )
        return consolidation if misleading is None else misleading + consolidation


def _select(state: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
