"""Negative label smoothing: cross-entropy with targets below 0 for other classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, final

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from sparseguard.core.config import settings
from sparseguard.defenses.base import Defense
from sparseguard.types import BatchContext, Labels

Fraction = Annotated[float, Field(ge=0, le=1)]


@final
@settings
class NegativeLabelSmoothing(Defense):
    r"""Train by cross-entropy with label smoothing by a negative amount.

    .. math:: L = (1 - a) \, \mathrm{CE} + a \, \frac{1}{K} \sum_k -\log p_k, \quad a < 0

    The other classes get targets below 0, which pushes the true class away from all of them alike. The amount is 0
    first, then grows linearly from epoch to epoch, then stays. Training runs all epochs and keeps the last weights:
    held-out loss would favor those from before the smoothing.

    Args:
        amount: a at the end, below 0.
        start: fraction of the training after which it grows, in [0, 1].
        full: fraction of the training after which it stays, in [0, 1], not before `start`.

    Raises:
        RecipeError: full before start.

    Source: Struppek, Hintersdorf and Kersting 2024 (ICLR), "Be careful what you smooth for"; a = -0.05 and the schedule
    (0 for 50 of 100 epochs, growing until epoch 75) by the authors' code.

    Differs: in the authors' code the amount has grown to a / 2 by epoch 75 and then jumps to a; here it reaches a
    without a jump.

    Limits: the loss has no lower bound, so long training or a large amount makes weights grow. A training of fewer than
    three epochs ends before the amount grows. It changes the model's outputs for classes, against attacks that
    optimize an image for a class; nothing bounds the information of a layer's output on a query image.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "label smoothing by a negative amount in the second half of training"
    source: ClassVar[str] = "Struppek et al. 2024 (ICLR)"
    chooses_epoch: ClassVar[bool] = False
    quick_settings: ClassVar[Mapping[str, Any]] = {"start": 0.0, "full": 0.25}
    amount: Annotated[float, Field(lt=0)] = -0.05
    start: Fraction = 0.5
    full: Fraction = 0.75

    @model_validator(mode="after")
    def _check_order(self) -> NegativeLabelSmoothing:
        if self.full < self.start:
            raise ValueError("full must not be before start")
        return self

    def compute_amount(self, elapsed: float) -> float:
        """Return a after the fraction ``elapsed`` of the training.

        Example:
            >>> smoothing = NegativeLabelSmoothing(amount=-0.1)
            >>> [round(smoothing.compute_amount(elapsed), 3) for elapsed in (0.4, 0.5, 0.6, 0.75, 0.9)]
            [-0.0, -0.0, -0.04, -0.1, -0.1]
        """
        if self.full == self.start:
            return self.amount * float(elapsed >= self.full)
        return self.amount * min(1.0, max(0.0, (elapsed - self.start) / (self.full - self.start)))

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return the term of the smoothing; None before `start`."""
        logits, labels = batch.logits[batch.own], batch.labels[batch.own]
        amount = self.compute_amount(batch.elapsed_fraction)
        return amount * smoothing_term(logits, labels) if amount and len(labels) else None


def smoothing_term(logits: Float[Tensor, "n k"], labels: Labels) -> Float[Tensor, ""]:
    r"""Return the term of label smoothing by 1 in the loss, the mean over images of :math:`z_y - \bar z`.

    :math:`\frac{1}{K} \sum_k -\log p_k - \mathrm{CE}`, where the normalization of :math:`p` cancels.
    """
    return (logits.gather(1, labels[:, None])[:, 0] - logits.mean(1)).mean()
