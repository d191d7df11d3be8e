"""Gaussian noise on intermediate dense outputs."""

from __future__ import annotations

from typing import Annotated, ClassVar, final

from pydantic import Field

from sparseguard.core.config import settings
from sparseguard.core.errors import RecipeError
from sparseguard.core.staged_model import Blueprint, Noise, StagedModel
from sparseguard.defenses.base import Defense, State


@final
@settings
class GaussianNoise(Defense):
    r"""Add noise to the raw output of every intermediate dense layer after training.

    .. math:: \tilde z = z + \epsilon, \quad \epsilon \sim N(0, \sigma^2), \text{ fresh at every query}

    Args:
        sigma: standard deviation, in units of the dense layer's output.
        stages: the stages whose output gets noise; those that a backbone lacks are skipped (only `row-linear` has
            `narrow`). Name other stages for other backbones (`flatten` of `torchvision:resnet18`).

    Raises:
        RecipeError: when the backbone has none of the stages, or the tap comes before all of them.

    Source: paper, section 4 (Gaussian-Noise: sigma 0.5, injected into intermediate dense layers after training).

    Differs: nothing known. The noise acts on every query, also in the measurement of accuracy.

    Limits: repeated queries average the noise away. The layers are not bounded, so a network with large values loses
    little; the record has the noise relative to the standard deviation of the features (`noise_ratio`).

    Released code: in 15 of 15 scripts the noise tensor is constant, so that values are multiplied by 1.5 (sigma 0.5) in
    training mode; it is off in evaluation mode and while attacked in 12 of 15.
    """

    revision: ClassVar[int] = 2
    summary: ClassVar[str] = "N(0, sigma) on intermediate dense outputs, after training, fresh at every query"
    source: ClassVar[str] = "paper, section 4 (Gaussian-Noise)"
    randomizes: ClassVar[bool] = True
    sigma: Annotated[float, Field(gt=0)] = 0.5
    stages: Annotated[tuple[str, ...], Field(min_length=1)] = ("first", "hidden", "narrow", "last")

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Change nothing; refuse a backbone or a tap without noise."""
        noisy = [stage for stage in self.stages if stage in blueprint.stage_names()]
        if not noisy:
            raise RecipeError(
                f"gaussian-noise acts on the stages {', '.join(self.stages)}, and this backbone has none of them. Name "
                f"some in gaussian-noise.stages ({', '.join(blueprint.stage_names())}), or choose laplace-noise."
            )
        if all(blueprint.is_tapped_before(stage) for stage in noisy):
            raise RecipeError(
                f"gaussian-noise acts on the stages {', '.join(noisy)}, and the tap '{blueprint.tap}' comes before. "
                f"Add '{blueprint.resolve_tap(blueprint.tap)}' to gaussian-noise.stages, or choose laplace-noise."
            )
        return blueprint

    def release(self, model: StagedModel) -> None:
        """Append the noise to the trained stages."""
        for stage in self.stages:
            if stage in model.stages:
                model.append_to(stage, Noise("gaussian", self.sigma))
