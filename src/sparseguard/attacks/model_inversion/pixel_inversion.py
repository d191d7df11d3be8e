"""Class inversion without a prior: images that only the target assigns to the class."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sparseguard.attacks._descent import Evaluation, descend
from sparseguard.attacks._image_transforms import clip_straight_through
from sparseguard.attacks._white_box import WhiteBoxModel
from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import ClassAttack, ClassContext
from sparseguard.attacks.model_inversion._losses import cross_entropy
from sparseguard.core.config import Count, Positive, settings
from sparseguard.core.seeding import derive
from sparseguard.types import ClassResult, Images, Knowledge, TargetClasses


@settings
class PixelInversion(ClassAttack):
    r"""Minimize the cross-entropy of a class over pixels, near noise, as a check of evaluators.

    .. math:: \min_x -\log \operatorname{softmax}(f(x))_c, \qquad x_0 \sim U(0, 1), \quad |x - x_0|_\infty \le \epsilon

    The target becomes sure of such images although they show noise. An evaluator that assigns them to the class accepts
    adversarial patterns, and its attack accuracy means little: they must score near chance. With a large bound the
    pattern may show the class: against dense layers the gradient draws its outline.

    Args:
        images: of each class.
        steps: of Adam.
        lr: of Adam, in units of the pixels' range.
        bound: how far a pixel may move from the noise; 1: anywhere.
        batch_size: images at once.

    Source: M. Fredrikson, S. Jha, T. Ristenpart, "Model Inversion Attacks that Exploit Confidence Information", CCS
    2015 (class-level inversion without a prior). Differs: starts from noise and stays near it, Adam, no denoising.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "control: images the target is sure of, without a prior; evaluators must not be"
    source: ClassVar[str] = "Fredrikson et al., CCS 2015"
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX
    control: ClassVar[bool] = True
    images: Count = 10
    steps: Count = 50
    lr: Positive = 0.05
    bound: Annotated[float, Field(gt=0, le=1)] = 0.1
    batch_size: Count = 256

    def run(self, access: ModelAccess, classes: TargetClasses, context: ClassContext) -> ClassResult:
        """Search the pixels of one batch after the other."""
        model = WhiteBoxModel(access.copy_model())
        source = torch.Generator().manual_seed(derive(purpose="pixels", seed=context.seed))
        labels = torch.tensor(classes.indices).repeat_interleave(self.images)
        starts = torch.rand(len(labels), *classes.shape, generator=source)
        images, confidence, start_confidence, losses = [], [], [], []
        with context.progress.task(f"{context.label}: pixels", len(labels)) as advance:
            for batch, own in zip(starts.split(self.batch_size), labels.split(self.batch_size), strict=True):
                start, wanted = batch.to(context.device), own.to(context.device)
                result, curve = self._search(model, start, wanted)
                images.append(result.cpu())
                confidence.append(_confidence(model, result, wanted).cpu())
                start_confidence.append(_confidence(model, start, wanted).cpu())
                losses.append(curve.cpu())
                advance(len(own))
        return ClassResult(
            images=torch.cat(images),
            labels=labels,
            confidence=torch.cat(confidence),
            steady_confidence=torch.cat(confidence),
            selected=torch.ones(len(labels), dtype=torch.bool),
            starts=starts,
            start_confidence=torch.cat(start_confidence),
            curves={"cross-entropy loss": (torch.stack(losses).sum(0) / len(labels)).tolist()},
        )

    def _search(self, model: WhiteBoxModel, start: Images, wanted: Tensor) -> tuple[Images, Float[Tensor, " steps"]]:
        """Return the images after the last step, and the summed loss at every step."""
        pixels = start.clone().requires_grad_()

        def evaluate(_step: int) -> Evaluation:
            loss = cross_entropy(model(clip_straight_through(pixels)), wanted)
            return Evaluation(objective=loss, loss=loss)

        def project() -> None:
            pixels.copy_(pixels.clamp(start - self.bound, start + self.bound))

        losses = descend(evaluate, torch.optim.Adam([pixels], lr=self.lr), self.steps, project)
        return pixels.detach().clamp(0, 1), torch.stack([loss.sum() for loss in losses])


@torch.no_grad()
def _confidence(model: WhiteBoxModel, images: Images, wanted: Tensor) -> Float[Tensor, " n"]:
    return F.softmax(model(images), 1).gather(1, wanted.unsqueeze(1)).squeeze(1)
