"""Control that lowers the rank of the first dense layer and does nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from sparseguard.core.config import settings
from sparseguard.core.errors import RecipeError
from sparseguard.core.staged_model import Blueprint
from sparseguard.defenses.base import Defense, State

STAGE = "first"
CHOICE = "Choose the backbone linear, linear-shallow, row-linear or conv, or another control, such as downsample."


@settings
class LowRank(Defense):
    r"""Give the first dense layer a weight matrix of low rank.

    .. math:: z = U V x + b

    V has as many rows as the rank, and there is no nonlinearity between the two. Fewer dimensions protect a
    tap without any sparsity; this control separates the two effects.

    Args:
        rank: of the weight matrix; below the layer's inputs and outputs.

    Raises:
        RecipeError: for a backbone without one dense layer in its stage ``first`` (torchvision's have none), a tap
            before it, or a rank that is not low.

    Source: ours (control).

    Differs: it is no published defense. Both matrices start as dense layers do, so the product starts smaller than
    the layer it replaces.

    Limits: it does not protect the remaining dimensions. On `row-linear`, where one layer processes the rows one by
    one, the rank is that of the layer: an image of 28 rows keeps up to 28 times as many dimensions.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "control: the first dense layer has a weight matrix of low rank"
    source: ClassVar[str] = "ours (control)"
    is_control: ClassVar[bool] = True
    quick_settings: ClassVar[Mapping[str, Any]] = {"rank": 4}
    rank: Annotated[int, Field(ge=1)] = 16

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Replace the dense layer of the stage ``first`` by two, without a nonlinearity between them."""
        plain = next((stage for stage in blueprint.stages if stage.name == STAGE), None)
        if plain is None:
            raise RecipeError(f"low-rank replaces the dense layer of a stage '{STAGE}', which is missing. {CHOICE}")
        if blueprint.is_tapped_before(STAGE):
            raise RecipeError(
                f"low-rank replaces the stage '{STAGE}', and the tap '{blueprint.tap}' comes before. Attack a later "
                f"tap, or choose another control, such as downsample."
            )
        return blueprint.replace(STAGE, lambda shape: self._factorize(plain.build(shape)))

    def _factorize(self, stage: nn.Module) -> nn.Module:
        dense = [(path, module) for path, module in stage.named_modules() if isinstance(module, nn.Linear)]
        if len(dense) != 1:
            raise RecipeError(f"low-rank needs a stage '{STAGE}' of one dense layer, not {len(dense)}. {CHOICE}")
        path, layer = dense[0]
        if self.rank >= min(layer.in_features, layer.out_features):
            raise RecipeError(
                f"low-rank: rank {self.rank} is not low for a layer {layer.in_features} to {layer.out_features}. "
                f"Choose a smaller rank."
            )
        factors = (nn.Linear(layer.in_features, self.rank, bias=False), nn.Linear(self.rank, layer.out_features))
        if isinstance(stage, nn.Sequential) and stage[-1] is layer:
            return nn.Sequential(*stage[:-1], *factors)
        owner, _, name = path.rpartition(".")
        setattr(stage.get_submodule(owner), name, nn.Sequential(*factors))
        return stage
