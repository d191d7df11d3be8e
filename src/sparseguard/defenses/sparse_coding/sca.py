"""SCA: the sparse-coding architecture."""

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
from sparseguard.defenses.sparse_coding._inspect import (
    find_inactive_sparse_layer,
    find_sparse_layers,
    measure_sparse_layers,
)
from sparseguard.defenses.sparse_coding._normalization import MIXES, Normalization, build_normalization
from sparseguard.defenses.sparse_coding._pretraining import Start, learn_atoms, load_atoms
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
    first, together with backpropagation into the same layers. The first layer's atoms stay random.

    Args:
        lambd: sparsity weight lambda of every layer, or one for each layer.
        features: atoms of each layer; 16 then 28, as in the released code on gray images. Their number is that of the
            layers.
        kernel_size: side of the square atoms; odd.
        stride: distance of neighboring positions, in every layer.
        steps: solver steps of each layer. The first layer has few channels, so its steps are cheap.
        hebbian: local update of every layer but the first; or one switch for each layer, including the first.
        backprop: gradients into the dictionary of every layer but the first; or one switch for each layer.
        rate: step of the local update.
        normalization: after each sparse layer: ``batch``, ``group`` (each image alone, over all its features), or
            ``none``.
        atoms: at the start, ``random``, or ``pretrained`` on attacker-side images by the local update, layer by layer.
        pretrain_epochs: passes over these images for each layer, when pretrained.
        pretrain_images: number of these images at most, drawn at random; their codes stay in memory.

    Raises:
        RecipeError: when the numbers of layers in ``lambd``, ``features``, ``steps`` and switches differ.

    Source: Dibbo et al., ECCV 2024, section 3 and footnote 3.

    Differs: solved by FISTA with a fixed number of steps instead of the locally competitive algorithm, whose fixed
    point differs at the border (see the page on sparse coding). Sizes that the main text does not give follow the
    released code. Pretrained atoms, group normalization and one switch for each layer are ours.

    Limits: nothing bounds the information in the codes. Lambda has a meaning only together with standardization,
    dictionary and solver; so the record has ``sparse_1_lambda_over_max`` and ``sparse_1_active``. DP-SGD
    combines only with layers that do not learn, and not with batch normalization.

    Released code: dictionaries are random and never learn (the update is called in 0 of 165 scripts; gradients into
    atoms are off in 30 of 30); 500 steps of the locally competitive algorithm in half precision; lambda 0.1 to 1.5
    depending on script; on color images convolutions and dropout follow where the paper has linear layers only.
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
    def _check_lengths(self) -> SparseCodingArchitecture:
        lengths = {len(values) for values in (self.features, self.steps, self.lambdas, self.hebbians, self.backprops)}
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
        return _expand_switches(self.hebbian, len(self.features))

    @property
    def backprops(self) -> tuple[bool, ...]:
        """Which layers learn by gradients."""
        return _expand_switches(self.backprop, len(self.features))

    def find_unaccounted_access(self) -> str | None:
        """Return the local update, gradients without per-sample form, and batch normalization."""
        reasons = []
        if any(self.hebbians):
            reasons.append("its dictionaries learn from private images by the local update: set hebbian = false")
        if any(self.backprops):
            reasons.append("gradients into its dictionaries have no per-sample form: set backprop = false")
        if self.normalization == "batch":
            reasons.append(MIXES)
        return "; ".join(reasons) or None

    def prepare(self, context: Context) -> State:
        """Learn the dictionaries if ``atoms`` says so."""
        if self.atoms == "random":
            return {}
        generator = torch.Generator().manual_seed(derive(purpose="atoms", seed=context.seed))
        channels = (context.auxiliary.shape[0], *self.features)
        pairs = [
            (self._build_layer(index, channels[index], generator), build_normalization(self.normalization, features))
            for index, features in enumerate(self.features)
        ]
        return learn_atoms(pairs, context, epochs=self.pretrain_epochs, images=self.pretrain_images)

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Insert the first layer before the stem as a stage, and the other layers into the stem."""

        def build_layer(index: int, channels: int) -> SparseCode2d:
            code = self._build_layer(index, channels)
            return code if self.atoms == "random" else load_atoms(code, state, index + 1)

        def build_stem(shape: Shape) -> nn.Module:
            modules = [build_normalization(self.normalization, shape[0])]
            for index, (channels, features) in enumerate(pairwise(self.features), start=1):
                modules += [build_layer(index, channels), build_normalization(self.normalization, features)]
            return nn.Sequential(*modules)

        return blueprint.insert_before("stem", "codes", lambda shape: build_layer(0, shape[0])).replace(
            "stem", build_stem
        )

    def on_step_end(self, model: StagedModel) -> None:
        """Update the dictionaries that learn locally."""
        for layer in find_sparse_layers(model):
            if layer.hebbian:
                layer.apply_update()

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Check every sparse layer's codes."""
        return find_inactive_sparse_layer(model, images)

    def facts(self, model: StagedModel, images: Tensor, state: State) -> dict[str, float]:
        """Return figures of every sparse layer, see `measure_sparse_layers`."""
        return measure_sparse_layers(model, images)

    def _build_layer(self, index: int, channels: int, generator: torch.Generator | None = None) -> SparseCode2d:
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


def _expand_switches(value: bool | tuple[bool, ...], layers: int) -> tuple[bool, ...]:
    """Return one switch for each layer; a single value leaves the first layer off."""
    return value if isinstance(value, tuple) else (False, *(value,) * (layers - 1))
