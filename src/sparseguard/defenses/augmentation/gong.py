"""Training with misleading features against model inversion."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.errors import RecipeError
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import StagedModel
from sparseguard.defenses.augmentation._added_images import AddsImages, draw_images, to_bytes
from sparseguard.defenses.augmentation._gong_images import (
    compute_repulsion,
    draw_derangement,
    invert_model,
    sample_typical_images,
    train_classifier,
)
from sparseguard.defenses.base import Context, State
from sparseguard.generators import ConditionalGenerator, GanFit, train_conditional_gan
from sparseguard.types import BatchContext, EpochContext, Phase, as_unit_float

LEARN, MISLEAD = "learn", "mislead"
RATE = 0.05
"""Adam's learning rate on the noise that is inverted."""
PREFIX = "generator/"
GONG = 'Gong et al. 2023, "A GAN-based defense framework against model inversion attacks" (IEEE TIFS)'


@settings
class Misleading(AddsImages, ABC):
    """Shared base of `gong` and `gong++`: settings, planted and inverted images, two phases of training.

    Args:
        learn: fraction of the epochs that train without the defense's terms, in [0, 1). At least one epoch where there
            are two, and never all.
        weight_planted: weight of the planted images' cross-entropy; >= 0.
        weight_inverted: weight of the term on inverted images; >= 0.
        ratio: planted images for each private image of a batch, and as many inverted ones; > 0.
        epochs: passes of the GAN over the auxiliary images.
        draws: images drawn for each planted one; those of which the classifier is surest are used.
        inverted: number of inverted images over all classes.
        steps: of Adam on the noise of an inverted image.
    """

    chooses_epoch: ClassVar[bool] = False
    quick_settings: ClassVar[Mapping[str, Any]] = {"epochs": 1, "inverted": 20, "steps": 5, "draws": 2}
    learn: Annotated[float, Field(ge=0, lt=1)] = 0.6
    weight_planted: Annotated[float, Field(ge=0)] = 0.2
    weight_inverted: Annotated[float, Field(ge=0)] = 0.1
    ratio: Annotated[float, Field(gt=0)] = 0.5
    epochs: Annotated[int, Field(ge=1)] = 25
    draws: Annotated[int, Field(ge=1)] = 4
    inverted: Annotated[int, Field(ge=1)] = 250
    steps: Annotated[int, Field(ge=1)] = 50

    def prepare(self, context: Context) -> State:
        """Train classifier and GAN on auxiliary images, and draw the planted images.

        Raises:
            RecipeError: when the auxiliary images are all of one class.
        """
        present = context.auxiliary.labels.unique()
        if len(present) < 2:
            raise RecipeError("gong plants features of other classes, and the auxiliary images have only one.")
        generator = train_conditional_gan(
            context.auxiliary,
            self._gan,
            seed=derive(purpose="gong's GAN", seed=context.seed),
            device=context.device,
            progress=context.progress,
            label=f"{context.label}: GAN",
        )
        classifier = train_classifier(
            context.auxiliary,
            epochs=10,
            seed=derive(purpose="gong's public classifier", seed=context.seed),
            device=context.device,
        )
        random = torch.Generator().manual_seed(derive(purpose="planted images", seed=context.seed))
        targets = draw_derangement(present, random)
        each = max(1, round(self.ratio * len(context.private) / len(present)))
        planted = [
            sample_typical_images(generator, classifier, int(target), each, self.draws, random) for target in targets
        ]
        return {
            "planted": to_bytes(torch.cat(planted)),
            "planted_labels": present.repeat_interleave(each),
            "planted_features": targets.repeat_interleave(each),
            **{f"{PREFIX}{name}": value for name, value in generator.state_dict().items()},
        }

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Split the epochs into learning and misleading."""
        learn = min(max(1, round(self.learn * epochs)), epochs - 1)
        return Phase(name=LEARN, epochs=learn), Phase(name=MISLEAD, epochs=epochs - learn)

    def on_epoch_start(self, context: EpochContext) -> State:
        """Invert the model at the start of the second phase."""
        if not (context.starts_phase and context.phase == MISLEAD):
            return {}
        generator = ConditionalGenerator(
            context.images.shape, len(context.images.classes), latent=self._gan.latent, width=self._gan.width
        ).to(context.device)
        state = {name: value for name, value in context.state.items() if name.startswith(PREFIX)}
        generator.load_state_dict({name.removeprefix(PREFIX): value for name, value in state.items()})
        present = context.state["planted_labels"].unique().to(context.device)
        labels = present[torch.arange(self.inverted, device=context.device) % len(present)]
        images = invert_model(
            context.model,
            generator.eval().requires_grad_(False),
            labels,
            steps=self.steps,
            rate=RATE,
            random=torch.Generator().manual_seed(derive(purpose="inverted images", seed=context.seed)),
        )
        return {"inverted": to_bytes(images), "inverted_labels": labels}

    def transform(
        self, images: Tensor, labels: Tensor, *, state: State, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Add planted and inverted images behind the batch's own in the second phase."""
        if "inverted" not in state:
            return images, labels
        count = self._count_added(len(labels))
        kinds = ("planted", "inverted")
        added = [draw_images(state[kind], state[f"{kind}_labels"], count, generator, images) for kind in kinds]
        return torch.cat([images, *(pixels for pixels, _ in added)]), torch.cat(
            [labels, *(classes for _, classes in added)]
        )

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return the weighted terms of the planted and the inverted images."""
        own = len(batch.labels[batch.own])
        count = self._count_added(own)
        if own == len(batch.labels) or count == 0:
            return None
        planted, inverted = slice(own, own + count), slice(own + count, own + 2 * count)
        return self.weight_planted * F.cross_entropy(
            batch.logits[planted], batch.labels[planted]
        ) + self.weight_inverted * compute_repulsion(batch.logits[inverted], batch.labels[inverted])

    @torch.no_grad()
    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return how often the model assigns planted images to their label, and to the class they show."""
        kinds = {"planted_as_labelled": "planted_labels", "planted_as_they_look": "planted_features"}
        return {
            name: _measure_agreement(model, state["planted"], state[kind], images.device)
            for name, kind in kinds.items()
        }

    @property
    def _gan(self) -> GanFit:
        return GanFit(epochs=self.epochs)

    def _count_added(self, own: int) -> int:
        return round(self.ratio * own)


def _measure_agreement(model: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """Return the fraction of 500 evenly chosen images to which the model assigns these labels."""
    subset = torch.linspace(0, len(images) - 1, min(500, len(images))).round().long()
    outputs = model(as_unit_float(images.cpu()[subset]).to(device)).argmax(1).cpu()
    return float((outputs == labels.cpu()[subset]).float().mean())


@final
@settings
class Gong(Misleading):
    r"""Train so that an inversion of one class finds features of another.

    .. math:: L = \mathrm{CE}(x, y) + \lambda_p \, \mathrm{CE}(x_p, y_p)
        - \lambda_i \, \mathrm{mean} \log(1 - p(y_i | x_i))

    A class-conditional GAN and a small classifier are trained on auxiliary images. Each class y is assigned another
    class t(y), at random, one to one. Planted images :math:`x_p` are images of class t(y) from the GAN, those of which
    the classifier is surest, labeled y.

    Training has two phases. In the first, only the cross-entropy of the private images counts. At the start of the
    second, the model is inverted: the GAN's noise is optimized until the model is sure of class :math:`y_i`. Training
    then pushes these inverted images :math:`x_i` away from their class, while planted images pull it to others. With
    weights of both below 1, private images win where they look alike. Training runs all epochs and keeps the last
    weights, because the lowest held-out loss would select the least misled ones. The model has the stages of the
    undefended model, and no randomness.

    Args:
        learn: fraction of the epochs in the first phase, in [0, 1). Each phase has at least one epoch; a training of
            one epoch has only the second phase.
        weight_planted: lambda_p; >= 0.
        weight_inverted: lambda_i; >= 0.
        ratio: planted images for each private image of a batch, and as many inverted ones; > 0.
        epochs: passes of the GAN over the auxiliary images.
        draws: images drawn for each planted one.
        inverted: number of inverted images over all classes.
        steps: of Adam on the noise of an inverted image.

    Raises:
        RecipeError: when the auxiliary images are all of one class.

    Source: Gong et al. 2023, "A GAN-based defense framework against model inversion attacks" (IEEE TIFS), without its
    continual learning.

    Differs: this is our reading of the abstract; the full text and code are not public. It says that training uses
    fake samples of a GAN, and that the loss of inverted samples is adjusted to inject misleading features into the
    protected label. The classes of the fakes, both terms, the two phases, the networks and every value are ours, and
    all classes are protected.

    Limits: designed against class inversion. The features of a single image are as invertible as without the defense.
    An attacker whose images differ from the GAN's may not be misled. The auxiliary images must resemble the private
    ones. Batch normalization in the backbone sees private and added images as one
    batch.

    Released code: the terms are numbers without gradient in 45 of 45 scripts of this family, so the target
    trains as without defense, and the second classifier is never updated (23 of 23). No label is protected, no
    feature misleads, nothing is inverted.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "planted and inverted GAN images mislead class inversion"
    source: ClassVar[str] = GONG
