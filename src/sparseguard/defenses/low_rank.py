"""The control that narrows the first dense layer and does nothing else."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from sparseguard.defenses.base import Defense, State
from sparseguard.errors import RecipeError
from sparseguard.settings import settings
from sparseguard.stages import Blueprint, Shape


@settings
class LowRank(Defense):
    r"""Give the first dense layer a weight matrix of low rank.

    .. math:: z = U V x + b

    V has as many rows as the rank, and there is no nonlinearity between the two. A tap that loses dimensions leaks
    less without any sparsity; this row tells the two apart.

    Args:
        rank: of the weight matrix; below the layer's inputs and outputs.

    Raises:
        RecipeError: for a backbone without one dense layer in its stage ``first``, or a rank that loses nothing.

    Source: ours (control).

    Differs: it is no published defense. Both matrices start as dense layers do, so the product starts smaller than
    the layer it replaces.

    Limits: what the rank lets through leaks as it would without it.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "control: the first dense layer has a weight matrix of low rank"
    source: ClassVar[str] = "ours (control)"
    rank: Annotated[int, Field(ge=1)] = 16

    def place(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Replace the stage ``first`` by two dense layers without a nonlinearity between them."""
        plain = next((stage for stage in blueprint.stages if stage.name == "first"), None)
        if plain is None:
            raise RecipeError("low-rank needs a backbone with a stage 'first'.")

        def build(shape: Shape) -> nn.Module:
            dense = [module for module in plain.build(shape).modules() if isinstance(module, nn.Linear)]
            if len(dense) != 1:
                raise ValueError("low-rank needs a stage 'first' with one dense layer")
            if self.rank >= min(math.prod(shape), dense[0].out_features):
                raise ValueError(
                    f"rank {self.rank} is no low rank for a layer {math.prod(shape)} to {dense[0].out_features}"
                )
            return nn.Sequential(
                nn.Flatten(),
                nn.Linear(math.prod(shape), self.rank, bias=False),
                nn.Linear(self.rank, dense[0].out_features),
            )

        return blueprint.replace("first", build)
