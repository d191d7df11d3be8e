"""SCA, the sparse-coding architecture."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, final

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sparseguard.core.config import OddSize, settings
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import Blueprint, Shape, StagedModel
from sparseguard.defenses.base import Context, Defense, State
from sparseguard.defenses.sparse_coding._inspect import inactive_sparse_layer, sparse_facts, sparse_layers
from sparseguard.defenses.sparse_coding._normalization import MIXES, Normalization, normalization
from sparseguard.defenses.sparse_coding._pretraining import Start, learned_atoms, put_atoms
from sparseguard.sparse import SparseCode2d

PerPair = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
Switches = bool | Annotated[tuple[bool, ...], Field(min_length=1)]


@final
@settings
class SparseCodingArchitecture(Defense):
    r"""Pairs of a sparse-coding layer and a normalization after the image, then the backbone.

    .. math:: R(X) = \arg\min_{R \ge 0} \tfrac12 \|X - R \circledast W\|_2^2 + \lambda \sum R

    X is the layer's input, each image standardized to mean 0 and variance 1; W are the atoms, of norm 1. By default
    training follows the paper: after each optimizer step, a local (Hebbian) update of every sparse layer but the
    first, with backpropagation into the same layers on top. The first layer's atoms then stay random.

    Args:
        lambd: sparsity weight lambda of every layer, or one a layer.
        features: atoms of each layer; 16 then 28, as in the released code on grey images. As many layers as numbers.
        kernel_size: side of the square atoms; odd.
        stride: distance of neighbouring positions, in every layer.
        steps: solver steps of each layer. The first layer has few channels, so its steps are cheap.
        hebbian: local update of every layer but the first; or one switch a layer, the first included.
        backprop: gradients into the dictionary of every layer but the first; or one switch a layer, likewise.
        rate: step of the local update.
        normalization: after each sparse layer: ``batch``, ``group`` (each image by itself, over all its features), or
            ``none``.
        atoms: at the start, ``random``, or ``pretrained`` on attacker-side images by the local update, layer by layer.
        pretrain_epochs: passes over those images for each layer, when pretrained.
        pretrain_images: how many of them at most, drawn at random; their codes are held in memory.

    Raises:
        RecipeError: when the numbers of layers in ``lambd``, ``features``, ``steps`` and switches differ.

    Source: Dibbo et al., ECCV 2024, section 3 and footnote 3.

    Differs: solved by FISTA with a fixed number of steps instead of the locally competitive algorithm, whose optimum
    is another one at the border (see the page on sparse coding). Sizes that the main text does not give follow the
    released code. Pretrained atoms, group normalization and one switch a layer are ours.

    Limits: nothing bounds what the codes give away; lambda means something only together with standardization,
    dictionary and solver, so that ``sparse_1_lambda_over_max`` and ``sparse_1_active`` are in the record. With
    DP-SGD only layers that do not learn can be combined, and no batch normalization.

    Released code: dictionaries are random and never learn (the update is called in 0 of 165 scripts; gradients into
    atoms are off in 30 of 30); 500 steps of the locally competitive algorithm in half precision; lambda 0.1 to 1.5
    depending on script; on colour images convolutions and dropout follow where the paper has linear layers only.
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
    hebbian: Switches = True
    backprop: Switches = True
    rate: Annotated[float, Field(ge=0)] = 0.01
    normalization: Normalization = "batch"
    atoms: Start = "random"
    pretrain_epochs: Annotated[int, Field(ge=1)] = 5
    pretrain_images: Annotated[int, Field(ge=1)] = 1000

    @model_validator(mode="after")
    def _same_number_of_layers(self) -> SparseCodingArchitecture:
        lengths = {len(per) for per in (self.features, self.steps, self.lambdas, self.hebbians, self.backprops)}
        if len(lengths) > 1:
            raise ValueError("lambd, features, steps, hebbian and backprop need one entry for each layer")
        return self

    @property
    def lambdas(self) -> tuple[float, ...]:
        """Lambda of each layer."""
        return self.lambd if isinstance(self.lambd, tuple) else (self.lambd,) * len(self.features)

    @property
    def hebbians(self) -> tuple[bool, ...]:
        """Which layers learn by the local update."""
        return _switches(self.hebbian, len(self.features))

    @property
    def backprops(self) -> tuple[bool, ...]:
        """Which layers learn by gradients."""
        return _switches(self.backprop, len(self.features))

    def find_unaccounted_access(self) -> str | None:
        """Name the local update, gradients that cannot be had of single images, and batch normalization."""
        reasons = []
        if any(self.hebbians):
            reasons.append("its dictionaries learn from private images by the local update: set hebbian = false")
        if any(self.backprops):
            reasons.append("gradients into its dictionaries cannot be had image by image: set backprop = false")
        if self.normalization == "batch":
            reasons.append(MIXES)
        return "; ".join(reasons) or None

    def prepare(self, context: Context) -> State:
        """Learn the dictionaries, where that is asked for."""
        if self.atoms == "random":
            return {}
        generator = torch.Generator().manual_seed(derive(purpose="atoms", seed=context.seed))
        channels = (context.auxiliary.shape[0], *self.features)
        pairs = [
            (self._layer(index, channels[index], generator), normalization(self.normalization, features))
            for index, features in enumerate(self.features)
        ]
        return learned_atoms(pairs, context, epochs=self.pretrain_epochs, images=self.pretrain_images)

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Put the first layer in front of the stem, as a stage of its own, and the rest in the stem."""

        def layer(index: int, channels: int) -> SparseCode2d:
            made = self._layer(index, channels)
            return made if self.atoms == "random" else put_atoms(made, state, index + 1)

        def rest(shape: Shape) -> nn.Module:
            modules = [normalization(self.normalization, shape[0])]
            for index, (channels, features) in enumerate(pairwise(self.features), start=1):
                modules += [layer(index, channels), normalization(self.normalization, features)]
            return nn.Sequential(*modules)

        return blueprint.insert_before("stem", "codes", lambda shape: layer(0, shape[0])).replace("stem", rest)

    def on_step_end(self, model: StagedModel) -> None:
        """Update the dictionaries that learn locally."""
        for layer in sparse_layers(model):
            if layer.hebbian:
                layer.apply_update()

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Look at every sparse layer's codes."""
        return inactive_sparse_layer(model, images)

    def facts(self, model: StagedModel, images: Tensor, state: State) -> dict[str, float]:
        """Return how sparse and faithful every layer's codes are."""
        return sparse_facts(model, images)

    def _layer(self, index: int, channels: int, generator: torch.Generator | None = None) -> SparseCode2d:
        return SparseCode2d(
            channels,
            self.features[index],
            self.kernel_size,
            stride=self.stride,
            generator=generator,
            lambd=self.lambdas[index],
            steps=self.steps[index],
            hebbian=self.hebbians[index],
            backprop=self.backprops[index],
            rate=self.rate,
        )


def _switches(given: bool | tuple[bool, ...], layers: int) -> tuple[bool, ...]:
    """Return one switch a layer; a single one leaves the first layer off."""
    return given if isinstance(given, tuple) else (False, *(given,) * (layers - 1))
