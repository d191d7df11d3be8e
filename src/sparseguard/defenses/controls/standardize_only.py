"""The control that removes what sparse layers remove before any sparsity: each image's mean and contrast."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from sparseguard.core.config import settings
from sparseguard.core.staged_model import Blueprint, StagedModel
from sparseguard.defenses.base import Defense, State
from sparseguard.sparse import StandardizeImage


@settings
class StandardizeOnly(Defense):
    r"""Standardize each image to mean 0 and variance 1 and do nothing else.

    .. math:: x' = (x - \mathrm{mean}(x)) / \mathrm{std}(x)

    Sparse layers standardize their input by default, and that alone lowers PSNR; this row tells it from sparsity.

    Source: ours (control).

    Differs: it is no published defense.

    Limits: all but two numbers of each image leak as they would without it.

    Released code: not in it as a defense of its own; its sparse layers standardize their inputs.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "control: per-image standardization alone"
    source: ClassVar[str] = "ours (control)"

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Standardize in the stem."""
        return blueprint.replace("stem", lambda _: StandardizeImage())

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Look at the stem's output."""
        mean = model.forward_to(images, "stem").mean(dim=(1, 2, 3)).abs().amax()
        return f"the stem's output has means up to {float(mean):.3g}, not 0" if mean > 1e-3 else None
