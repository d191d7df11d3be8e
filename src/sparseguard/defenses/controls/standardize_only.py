"""Control that standardizes each image, as sparse layers do before they code it."""

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

    Sparse layers standardize their input by default, and that alone lowers PSNR. This control separates it from
    sparsity.

    Source: ours (control).

    Differs: it is no published defense.

    Limits: it hides two numbers of each image.

    Released code: not in it as a separate defense; its sparse layers standardize their inputs.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "control: per-image standardization alone"
    source: ClassVar[str] = "ours (control)"
    is_control: ClassVar[bool] = True

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Standardize in the stem."""
        return blueprint.replace("stem", lambda _: StandardizeImage())

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Check the mean of the stem's output."""
        mean = model.forward_to(images, "stem").mean(dim=(1, 2, 3)).abs().amax()
        return f"the stem's output has means up to {float(mean):.3g}, not 0" if mean > 1e-3 else None
