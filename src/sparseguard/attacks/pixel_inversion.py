"""Images of a class without a prior: what a target takes for the class, and nobody else should."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sparseguard.attacks.class_base import ClassAttack, ClassContext
from sparseguard.attacks.class_losses import cross_entropy
from sparseguard.attacks.views import clipped
from sparseguard.attacks.white_box import WhiteBox
from sparseguard.leak import Leak
from sparseguard.seeds import derive
from sparseguard.settings import settings
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

    Source: M. Fredrikson, S. Jha, T. Ristenpart, "Model Inversion Attacks that Exploit Confidence Information", CCS
    2015 (class-level inversion without a prior). Differs: starts from noise and stays near it, Adam, no denoising.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "control: images the target is sure of, without a prior; evaluators must not be"
    source: ClassVar[str] = "Fredrikson et al., CCS 2015"
    knowledge: ClassVar[Knowledge] = Knowledge.WEIGHTS
    control: ClassVar[bool] = True
    images: Annotated[int, Field(ge=1)] = 10
    steps: Annotated[int, Field(ge=1)] = 50
    lr: Annotated[float, Field(gt=0)] = 0.05
    bound: Annotated[float, Field(gt=0, le=1)] = 0.1

    def run(self, leak: Leak, goal: Classes, context: ClassContext) -> ClassResult:
        """Search pixels of all images at once."""
        box = WhiteBox(leak.white_box())
        source = torch.Generator().manual_seed(derive(purpose="pixels", seed=context.seed))
        labels = torch.tensor(goal.wanted).repeat_interleave(self.images)
        start = torch.rand(len(labels), *goal.shape, generator=source).to(context.device)
        wanted = labels.to(context.device)
        pixels = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([pixels], lr=self.lr)
        losses = []
        with context.progress.task(f"{context.label}: pixels", self.steps) as advance:
            for _ in range(self.steps):
                loss = cross_entropy(box(clipped(pixels)), wanted)
                optimizer.zero_grad(set_to_none=True)
                loss.sum().backward()
                optimizer.step()
                with torch.no_grad():
                    pixels.copy_(pixels.clamp(start - self.bound, start + self.bound))
                losses.append(loss.detach().mean())
                advance(1)
        found = pixels.detach().clamp(0, 1)
        confidence = _confidence(box, found, wanted).cpu()
        return ClassResult(
            images=found.cpu(),
            labels=labels,
            confidence=confidence,
            steady_confidence=confidence,
            selected=torch.ones(len(labels), dtype=torch.bool),
            starts=start.cpu(),
            start_confidence=_confidence(box, start, wanted).cpu(),
            curves={"cross-entropy loss": torch.stack(losses).tolist()},
        )


@torch.no_grad()
def _confidence(box: WhiteBox, images: Float[Tensor, "n c h w"], wanted: Tensor) -> Float[Tensor, " n"]:
    return F.softmax(box(images), 1).gather(1, wanted.unsqueeze(1)).squeeze(1)
