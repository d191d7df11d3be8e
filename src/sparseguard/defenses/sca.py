"""SCA, the sparse-coding architecture."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn

from sparseguard.defenses.base import Defense, State
from sparseguard.defenses.sparse_layers import inactive_sparse_layer, sparse_layers
from sparseguard.settings import OddSize, settings
from sparseguard.sparse import SparseCode2d
from sparseguard.stages import Blueprint, Shape, StagedModel

PerPair = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


@settings
class SparseCodingArchitecture(Defense):
    """Pairs of a sparse-coding layer and batch normalization after the image, then the backbone.

    Training follows the paper: after each optimizer step, a local (Hebbian) update of every sparse layer but the
    first, with backpropagation into the same layers on top; each can be switched off. The first layer's atoms stay
    random.

    Args:
        lambd: sparsity weight lambda of every layer, or one a layer.
        features: atoms of each layer; 16 then 28, as in the released code on grey images.
        kernel_size: side of the square atoms.
        stride: distance of neighbouring positions, in every layer.
        steps: solver steps of each layer. The first layer has few channels, so its steps are cheap.
        hebbian: local update of layers 2, 3, ...
        backprop: gradients into the dictionaries of layers 2, 3, ...
        rate: step of the local update.

    Raises:
        RecipeError: when the numbers of layers in ``lambd``, ``features`` and ``steps`` differ.

    Source: paper, section 3 and footnote 3. Deviations: solved by FISTA (see `SparseCode2d`); sizes not in the paper's
    main text follow the released code.
    """

    revision: ClassVar[int] = 3
    summary: ClassVar[str] = "pairs of sparse-coding layer and batch normalization after the image"
    source: ClassVar[str] = "paper, section 3 (SCA)"
    lambd: Annotated[float, Field(ge=0)] | Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        0.5
    )
    features: PerPair = (16, 28)
    kernel_size: OddSize = 5
    stride: Annotated[int, Field(ge=1)] = 1
    steps: PerPair = (20, 8)
    hebbian: bool = True
    backprop: bool = True
    rate: Annotated[float, Field(ge=0)] = 0.01

    @model_validator(mode="after")
    def _same_number_of_layers(self) -> SparseCodingArchitecture:
        lengths = {len(self.features), len(self.steps), len(self.lambdas)}
        if len(lengths) > 1:
            raise ValueError("lambd, features and steps need one entry for each layer")
        return self

    @property
    def lambdas(self) -> tuple[float, ...]:
        """Lambda of each layer."""
        return self.lambd if isinstance(self.lambd, tuple) else (self.lambd,) * len(self.features)

    def place(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Put the first layer in front of the stem, as a stage of its own, and the rest in the stem."""
        return blueprint.put_before("stem", "codes", lambda shape: self._layer(0, shape[0])).replace("stem", self._rest)

    def after_step(self, model: StagedModel) -> None:
        """Update the dictionaries that learn locally."""
        if self.hebbian:
            for layer in sparse_layers(model)[1:]:
                layer.apply_update()

    def inactive(self, model: StagedModel, images: Tensor) -> str | None:
        """Look at every sparse layer's codes."""
        return inactive_sparse_layer(model, images)

    def _rest(self, shape: Shape) -> nn.Module:
        modules: list[nn.Module] = [nn.BatchNorm2d(shape[0])]
        for index, (channels, features) in enumerate(pairwise(self.features), start=1):
            modules += [self._layer(index, channels), nn.BatchNorm2d(features)]
        return nn.Sequential(*modules)

    def _layer(self, index: int, channels: int) -> nn.Module:
        return SparseCode2d(
            channels,
            self.features[index],
            self.kernel_size,
            stride=self.stride,
            lambd=self.lambdas[index],
            steps=self.steps[index],
            hebbian=self.hebbian and index > 0,
            backprop=self.backprop and index > 0,
            rate=self.rate,
        )
