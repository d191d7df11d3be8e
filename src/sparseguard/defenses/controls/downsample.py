"""Control that lowers the resolution and does nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, final

from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.staged_model import Blueprint, Shape, StagedModel
from sparseguard.defenses.base import Defense, State


@final
@settings
class Downsample(Defense):
    r"""Average each image over squares of pixels before the model.

    .. math:: x'_{ij} = \frac1{f^2} \sum_{a, b < f} x_{fi + a,\, fj + b}

    No attack can recover what the averages do not contain. A defense has to beat this loss of detail, which costs
    nothing.

    Args:
        factor: side of the squares, in pixels; height and width of the images must be multiples of it.

    Raises:
        RecipeError: when a side of the images is not a multiple of the factor, or the averages are too small for the
            backbone.

    Source: ours (control).

    Differs: it is no published defense.

    Limits: averaged images may be too small for a backbone that pools, which raises an error: 32 x 32 pixels averaged
    over squares of 4 are too small for `torchvision:squeezenet1_1`. It does not protect the averages.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "control: images averaged over squares of pixels"
    source: ClassVar[str] = "ours (control)"
    is_control: ClassVar[bool] = True
    quick_settings: ClassVar[Mapping[str, Any]] = {"factor": 2}
    factor: Annotated[int, Field(ge=2)] = 4

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Average in the stem."""

        def build(shape: Shape) -> nn.Module:
            if any(side % self.factor for side in shape[1:]):
                raise ValueError(f"images of {shape[1]}x{shape[2]} do not divide into squares of side {self.factor}")
            return nn.AvgPool2d(self.factor)

        return blueprint.replace("stem", build)

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Check the size of the stem's output."""
        size, reduced = tuple(images.shape[2:]), tuple(model.forward_to(images, "stem").shape[2:])
        if reduced == tuple(side // self.factor for side in size):
            return None
        return f"the stem reduces images of {size} to {reduced}; the factor is {self.factor}"
