"""Sparse-Standard: one sparse layer before an ordinary network."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import OddSize, settings
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import Blueprint, Shape, StagedModel
from sparseguard.defenses.base import Context, Defense, State
from sparseguard.defenses.sparse_coding._inspect import find_inactive_sparse_layer, measure_sparse_layers
from sparseguard.defenses.sparse_coding._pretraining import Start, learn_atoms, load_atoms
from sparseguard.sparse import SparseCode2d


@settings
class SparseStandard(Defense):
    r"""One sparse-coding layer after the image, then one convolution.

    .. math:: R(X) = \arg\min_{R \ge 0} \tfrac12 \|X - R \circledast W\|_2^2 + \lambda \sum R

    The atoms are not learned from private images; the convolution is, and has no nonlinearity of its own.

    Args:
        lambd: sparsity weight lambda.
        features: atoms of the sparse layer, of unit norm.
        channels: output channels of the convolution.
        kernel_size: side of atoms and convolution kernels; odd.
        stride: distance of neighboring positions of the code.
        steps: solver steps.
        atoms: ``random``, or ``pretrained`` on attacker-side images by the local update.
        pretrain_epochs: passes over these images, when pretrained.
        pretrain_images: number of these images at most, drawn at random.

    Source: Dibbo et al., ECCV 2024, section 4 (Sparse-Standard), after Teti et al., "LCANets", ICML 2022.

    Differs: solved by FISTA with a fixed number of steps instead of the locally competitive algorithm. Feature numbers
    and the missing nonlinearity are the released code's. Atoms are random by default; Teti et al. learn them without
    labels, as ``pretrained`` does.

    Limits: nothing bounds the information in the codes. Lambda has a meaning only together with standardization,
    dictionary and solver; so the record has ``sparse_1_lambda_over_max`` and ``sparse_1_active``.

    Released code: random atoms that never learn, 500 steps of the locally competitive algorithm in half precision,
    lambda 0.25 on gray images and 0.1 on color (0.25 in the Plug-and-Play scripts).
    """

    revision: ClassVar[int] = 3
    summary: ClassVar[str] = "one sparse-coding layer and one convolution"
    source: ClassVar[str] = "paper, section 4 (Sparse-Standard); Teti et al., ICML 2022"
    lambd: Annotated[float, Field(ge=0)] = 0.25
    features: Annotated[int, Field(ge=1)] = 16
    channels: Annotated[int, Field(ge=1)] = 28
    kernel_size: OddSize = 5
    stride: Annotated[int, Field(ge=1)] = 1
    steps: Annotated[int, Field(ge=1)] = 20
    atoms: Start = "random"
    pretrain_epochs: Annotated[int, Field(ge=1)] = 5
    pretrain_images: Annotated[int, Field(ge=1)] = 1000

    def prepare(self, context: Context) -> State:
        """Learn the dictionary if ``atoms`` says so."""
        if self.atoms == "random":
            return {}
        generator = torch.Generator().manual_seed(derive(purpose="atoms", seed=context.seed))
        pairs = [(self._build_layer(context.auxiliary.shape[0], generator), nn.Identity())]
        return learn_atoms(pairs, context, epochs=self.pretrain_epochs, images=self.pretrain_images)

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Insert the sparse layer before the stem as a stage, and the convolution into the stem."""

        def build_codes(shape: Shape) -> nn.Module:
            code = self._build_layer(shape[0])
            return code if self.atoms == "random" else load_atoms(code, state, 1)

        def build_stem(shape: Shape) -> nn.Module:
            return nn.Conv2d(shape[0], self.channels, self.kernel_size, padding="same")

        return blueprint.insert_before("stem", "codes", build_codes).replace("stem", build_stem)

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Check the sparse layer's codes."""
        return find_inactive_sparse_layer(model, images)

    def facts(self, model: StagedModel, images: Tensor, state: State) -> dict[str, float]:
        """Return figures of the sparse layer, see `measure_sparse_layers`."""
        return measure_sparse_layers(model, images)

    def _build_layer(self, channels: int, generator: torch.Generator | None = None) -> SparseCode2d:
        return SparseCode2d(
            channels,
            self.features,
            self.kernel_size,
            stride=self.stride,
            generator=generator,
            lambd=self.lambd,
            steps=self.steps,
        )
