"""Negative label smoothing."""

from __future__ import annotations

from typing import Annotated, ClassVar, final

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from sparseguard.core.config import settings
from sparseguard.defenses.base import Defense
from sparseguard.types import BatchContext, Labels

Share = Annotated[float, Field(ge=0, le=1)]


@final
@settings
class NegativeLabelSmoothing(Defense):
    r"""Take the cross-entropy with label smoothing by a negative amount.

    .. math:: L = (1 - a) \, \mathrm{CE} + a \, \frac{1}{K} \sum_k -\log p_k, \quad a < 0

    The other classes get targets below 0, which pushes the true class away from all of them alike. The amount is 0
    first, then grows, linearly from epoch to epoch, and stays. Training runs all epochs, and the last weights are kept:
    held-out loss favours those from before the smoothing.

    Args:
        amount: a at the end, below 0.
        start: share of the training from which on it grows, in [0, 1].
        full: share of the training from which on it stays, in [0, 1], not before `start`.

    Raises:
        RecipeError: full before start.

    Source: Struppek, Hintersdorf and Kersting 2024 (ICLR), "Be careful what you smooth for"; a = -0.05 and the schedule
    (0 for 50 of 100 epochs, growing until epoch 75) by the authors' code.

    Differs: in the authors' code the amount has grown to a / 2 by epoch 75 and then leaps to a; here it reaches a
    without a leap.

    Limits: the loss has no lower bound, so long training or a large amount makes weights grow. A training of fewer than
    three epochs ends before the amount grows. It changes what the model says of classes, against attackers that
    optimize an image for a class; nothing bounds what a layer's output tells of the image it is fed.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "label smoothing by a negative amount in the second half of training"
    source: ClassVar[str] = "Struppek et al. 2024 (ICLR)"
    chooses_epoch: ClassVar[bool] = False
    amount: Annotated[float, Field(lt=0)] = -0.05
    start: Share = 0.5
    full: Share = 0.75

    @model_validator(mode="after")
    def _in_order(self) -> NegativeLabelSmoothing:
        if self.full < self.start:
            raise ValueError("full must not be before start")
        return self

    def amount_at(self, share: float) -> float:
        """Return a when ``share`` of the training lies behind.

        Example:
            >>> smoothing = NegativeLabelSmoothing(amount=-0.1)
            >>> [round(smoothing.amount_at(share), 3) for share in (0.4, 0.5, 0.6, 0.75, 0.9)]
            [-0.0, -0.0, -0.04, -0.1, -0.1]
        """
        if self.full == self.start:
            return self.amount * float(share >= self.full)
        return self.amount * min(1.0, max(0.0, (share - self.start) / (self.full - self.start)))

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return what the amount adds; nothing before `start`."""
        logits, labels = batch.logits[batch.own], batch.labels[batch.own]
        amount = self.amount_at(batch.elapsed_fraction)
        return amount * smoothing(logits, labels) if amount and len(labels) else None


def smoothing(logits: Float[Tensor, "n k"], labels: Labels) -> Float[Tensor, ""]:
    r"""Return what label smoothing by 1 adds to the cross-entropy, the mean over images of :math:`z_y - \bar z`.

    :math:`\frac{1}{K} \sum_k -\log p_k - \mathrm{CE}`, where the normalization of :math:`p` cancels.
    """
    return (logits.gather(1, labels[:, None])[:, 0] - logits.mean(1)).mean()
