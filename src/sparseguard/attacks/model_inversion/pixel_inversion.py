"""Images of a class without a prior: what a target takes for the class, and nobody else should."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sparseguard.attacks._image_transforms import clipped
from sparseguard.attacks._white_box import WhiteBox
from sparseguard.attacks.access import Leak
from sparseguard.attacks.class_base import ClassAttack, ClassContext
from sparseguard.attacks.model_inversion._losses import cross_entropy
from sparseguard.core.config import settings
from sparseguard.core.seeding import derive
from sparseguard.types import Classes, ClassResult, Knowledge


@settings
class PixelInversion(ClassAttack):
    r"""Minimize the cross-entropy of a class over pixels, near noise, and show what evaluators make of that.

    .. math:: \min_x -\log \operatorname{softmax}(f(x))_c, \qquad x_0 \sim U(0, 1), \quad |x - x_0|_\infty \le \epsilon

    The target becomes sure of such images although they show noise. An evaluator that takes them for the class
    takes adversarial patterns for real images, and its attack accuracy means little: they must score near chance.
    With a large bound the pattern may come to show the class: against dense layers the gradient draws its outline.

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
    images: Annotated[int, Field(ge=1)] = 10
    steps: Annotated[int, Field(ge=1)] = 50
    lr: Annotated[float, Field(gt=0)] = 0.05
    bound: Annotated[float, Field(gt=0, le=1)] = 0.1
    batch_size: Annotated[int, Field(ge=1)] = 256

    def run(self, leak: Leak, goal: Classes, context: ClassContext) -> ClassResult:
        """Search the pixels of one batch after the other."""
        box = WhiteBox(leak.white_box())
        source = torch.Generator().manual_seed(derive(purpose="pixels", seed=context.seed))
        labels = torch.tensor(goal.wanted).repeat_interleave(self.images)
        starts = torch.rand(len(labels), *goal.shape, generator=source)
        images, confidence, before, losses = [], [], [], []
        with context.progress.task(f"{context.label}: pixels", len(labels)) as advance:
            for some, own in zip(starts.split(self.batch_size), labels.split(self.batch_size), strict=True):
                start, wanted = some.to(context.device), own.to(context.device)
                found, curve = self._descend(box, start, wanted)
                images.append(found.cpu())
                confidence.append(_confidence(box, found, wanted).cpu())
                before.append(_confidence(box, start, wanted).cpu())
                losses.append(curve.cpu())
                advance(len(own))
        sure = torch.cat(confidence)
        return ClassResult(
            images=torch.cat(images),
            labels=labels,
            confidence=sure,
            steady_confidence=sure,
            selected=torch.ones(len(labels), dtype=torch.bool),
            starts=starts,
            start_confidence=torch.cat(before),
            curves={"cross-entropy loss": (torch.stack(losses).sum(0) / len(labels)).tolist()},
        )

    def _descend(
        self, box: WhiteBox, start: Float[Tensor, "n c h w"], wanted: Tensor
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " steps"]]:
        """Return the images after the last step, and the summed loss at every step."""
        pixels = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([pixels], lr=self.lr)
        losses = []
        for _ in range(self.steps):
            loss = cross_entropy(box(clipped(pixels)), wanted).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                pixels.copy_(pixels.clamp(start - self.bound, start + self.bound))
            losses.append(loss.detach())
        return pixels.detach().clamp(0, 1), torch.stack(losses)


@torch.no_grad()
def _confidence(box: WhiteBox, images: Float[Tensor, "n c h w"], wanted: Tensor) -> Float[Tensor, " n"]:
    return F.softmax(box(images), 1).gather(1, wanted.unsqueeze(1)).squeeze(1)
