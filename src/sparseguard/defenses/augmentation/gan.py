"""Training on private images and fake images of a GAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sparseguard.core.config import settings
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import StagedModel
from sparseguard.defenses.augmentation._added_images import AddsImages, draw_images, to_bytes
from sparseguard.defenses.base import Context, State
from sparseguard.generators import GanFit, train_conditional_gan
from sparseguard.types import BatchContext, as_unit_float


@final
@settings
class GenerativeAugmentation(AddsImages):
    r"""Train on the private images and on fakes that a class-conditional GAN learned from them.

    .. math:: L = \mathrm{CE}(x, y) + \lambda \, \mathrm{CE}(G(z, y'), y')

    Before training, generator G is trained on the private images against a discriminator, and a pool of fakes is drawn
    from it, equally many of each class y'. Training adds random fakes of the pool to every batch. The GAN is discarded;
    the model has the stages of the undefended model, and no randomness.

    Args:
        weight: lambda, of the fakes' cross-entropy; >= 0.
        ratio: fakes for each private image, in the pool as in every batch; > 0.
        epochs: passes of the GAN over the private images.

    Source: paper, section 4 (GAN: a GAN is trained for 25 epochs, then the target on real and fake images). It cites
    no original work.

    Differs: the paper names neither the GAN nor weight and ratio; a small convolutional GAN (see
    `train_conditional_gan`), weight 1 and ratio 1 are ours. The GAN sees all private images, also those which the
    target holds out for early stopping.

    Limits: it hides nothing at the tap; any protection is a side effect of what the model learns. The fakes come from
    private images and may carry these into the model's weights.
    Batch normalization in the backbone sees private images and fakes as one batch.

    Released code: the fakes' loss is a number without gradient in 45 of 45 scripts of this family, so the
    target trains as without defense; the GAN's loss compares the validities of a batch with each other instead of
    with real and fake in 85 of 85 scripts that have one.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "trained on private images and on fakes of a GAN learned from them"
    source: ClassVar[str] = "paper, section 4 (GAN)"
    quick_settings: ClassVar[Mapping[str, Any]] = {"epochs": 1}
    weight: Annotated[float, Field(ge=0)] = 1.0
    ratio: Annotated[float, Field(gt=0)] = 1.0
    epochs: Annotated[int, Field(ge=1)] = 25

    def find_unaccounted_access(self) -> str:
        """Return that a GAN learns from private images."""
        return "a GAN learns from private images, and the target from its fakes"

    def prepare(self, context: Context) -> State:
        """Train the GAN and draw the pool of fakes."""
        generator = train_conditional_gan(
            context.private,
            GanFit(epochs=self.epochs),
            seed=derive(purpose="gan", seed=context.seed),
            device=context.device,
            progress=context.progress,
            label=f"{context.label}: GAN",
        )
        present = context.private.labels.unique()
        labels = present[torch.arange(max(1, round(self.ratio * len(context.private)))) % len(present)]
        draws = torch.Generator().manual_seed(derive(purpose="fakes", seed=context.seed))
        return {"fakes": to_bytes(generator.sample(labels, draws)), "labels": labels}

    def transform(
        self, images: Tensor, labels: Tensor, *, state: State, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Add fakes behind the batch's own images."""
        count = round(self.ratio * len(labels))
        fakes, classes = draw_images(state["fakes"], state["labels"], count, generator, images)
        return torch.cat([images, fakes]), torch.cat([labels, classes])

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return the fakes' weighted cross-entropy."""
        if batch.own_count is None or batch.own_count == len(batch.labels):
            return None
        return self.weight * F.cross_entropy(batch.logits[batch.own_count :], batch.labels[batch.own_count :])

    @torch.no_grad()
    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return the fraction of 500 fakes that the model assigns to their class."""
        fakes, labels = as_unit_float(state["fakes"][:500]).to(images.device), state["labels"][:500].to(images.device)
        return {"fakes_accuracy": float((model(fakes).argmax(1) == labels).float().mean())}
