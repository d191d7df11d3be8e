"""Sparse-Standard: one sparse layer in front of an ordinary network."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import OddSize, settings
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import Blueprint, Shape, StagedModel
from sparseguard.defenses.base import Context, Defense, State
from sparseguard.defenses.sparse_coding._inspect import inactive_sparse_layer, sparse_facts
from sparseguard.defenses.sparse_coding._pretraining import Start, learned_atoms, put_atoms
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
        stride: distance of neighbouring positions of the code.
        steps: solver steps.
        atoms: ``random``, or ``pretrained`` on attacker-side images by the local update.
        pretrain_epochs: passes over those images, when pretrained.
        pretrain_images: how many of them at most, drawn at random.

    Source: Dibbo et al., ECCV 2024, section 4 (Sparse-Standard), after Teti et al., "LCANets", ICML 2022.

    Differs: solved by FISTA with a fixed number of steps instead of the locally competitive algorithm. Feature numbers
    and the missing nonlinearity are the released code's. Atoms are random by default; Teti et al. learn them without
    labels, as ``pretrained`` does.

    Limits: nothing bounds what the codes give away; lambda means something only together with standardization,
    dictionary and solver, so that ``sparse_1_lambda_over_max`` and ``sparse_1_active`` are in the record.

    Released code: random atoms that never learn, 500 steps of the locally competitive algorithm in half precision,
    lambda 0.25 on grey images and 0.1 on colour (0.25 in the Plug-and-Play scripts).
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
        """Learn the dictionary, where that is asked for."""
        if self.atoms == "random":
            return {}
        generator = torch.Generator().manual_seed(derive(purpose="atoms", seed=context.seed))
        pairs = [(self._layer(context.auxiliary.shape[0], generator), nn.Identity())]
        return learned_atoms(pairs, context, epochs=self.pretrain_epochs, images=self.pretrain_images)

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Put the sparse layer in front of the stem, as a stage of its own, and the convolution in the stem."""

        def codes(shape: Shape) -> nn.Module:
            made = self._layer(shape[0])
            return made if self.atoms == "random" else put_atoms(made, state, 1)

        def stem(shape: Shape) -> nn.Module:
            return nn.Conv2d(shape[0], self.channels, self.kernel_size, padding="same")

        return blueprint.insert_before("stem", "codes", codes).replace("stem", stem)

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Look at the sparse layer's codes."""
        return inactive_sparse_layer(model, images)

    def facts(self, model: StagedModel, images: Tensor, state: State) -> dict[str, float]:
        """Return how sparse and faithful the codes are."""
        return sparse_facts(model, images)

    def _layer(self, channels: int, generator: torch.Generator | None = None) -> SparseCode2d:
        return SparseCode2d(
            channels,
            self.features,
            self.kernel_size,
            stride=self.stride,
            generator=generator,
            lambd=self.lambd,
            steps=self.steps,
        )
