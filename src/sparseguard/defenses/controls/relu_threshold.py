"""The control that has SCA's atoms and threshold, and no competition between atoms."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, final

from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import OddSize, settings
from sparseguard.core.staged_model import Blueprint, Shape, StagedModel
from sparseguard.defenses.base import Defense, State
from sparseguard.defenses.sparse_coding._inspect import inactive_layer, run_watched
from sparseguard.defenses.sparse_coding._normalization import MIXES, Normalization, normalization
from sparseguard.defenses.sparse_coding._threshold_layer import ThresholdCode2d


@final
@settings
class ReluThreshold(Defense):
    r"""SCA with one thresholded correlation in place of every sparse code.

    .. math:: R(X) = \mathrm{relu}(X * W - \lambda)

    X is standardized as in SCA, and the atoms W at the start are those SCA has at the same seed. Atoms do not compete
    for the same part of an image, so more of them are active. It tells what solving for a sparse code buys beyond a
    random filter and a threshold.

    Args:
        lambd: threshold.
        features: atoms of each layer.
        kernel_size: side of the square atoms; odd.
        backprop: gradients into the dictionaries of layers 2, 3, ...; after each step atoms have norm 1 again.
        normalization: after each layer: ``batch``, ``group`` (each image by itself) or ``none``.

    Source: ours (control).

    Differs: it is no published defense. Against SCA there is no local update, which has no meaning without a
    reconstruction.

    Limits: at the same lambda it has another number of active coefficients than SCA; ``threshold_1_active`` and
    ``sparse_1_active`` are in the records.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "control: SCA's atoms and threshold without competition between atoms"
    source: ClassVar[str] = "ours (control)"
    lambd: Annotated[float, Field(ge=0)] = 0.5
    features: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (16, 28)
    kernel_size: OddSize = 5
    backprop: bool = True
    normalization: Normalization = "batch"

    def find_unaccounted_access(self) -> str | None:
        """Name batch normalization."""
        return MIXES if self.normalization == "batch" else None

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Put the first layer in front of the stem, as a stage of its own, and the rest in the stem."""

        def codes(shape: Shape) -> nn.Module:
            return ThresholdCode2d(shape[0], self.features[0], self.kernel_size, lambd=self.lambd)

        def rest(shape: Shape) -> nn.Module:
            modules = [normalization(self.normalization, shape[0])]
            for channels, features in pairwise(self.features):
                modules += [
                    ThresholdCode2d(channels, features, self.kernel_size, lambd=self.lambd, backprop=self.backprop),
                    normalization(self.normalization, features),
                ]
            return nn.Sequential(*modules)

        return blueprint.insert_before("stem", "codes", codes).replace("stem", rest)

    def on_step_end(self, model: StagedModel) -> None:
        """Give the atoms that learn norm 1 again."""
        for layer in _layers(model):
            if layer.learns:
                layer.renormalize()

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Look at every layer's codes."""
        layers = _layers(model)
        return inactive_layer(model, images, "threshold layer", layers, [layer.lambd == 0 for layer in layers])

    def facts(self, model: StagedModel, images: Tensor, state: State) -> dict[str, float]:
        """Return how many coefficients of each layer are active in an image, and their share of all."""
        layers, codes = _layers(model), list[Tensor]()
        run_watched(model, images, layers, lambda _, code: codes.append(code))
        facts: dict[str, float] = {}
        for number, code in enumerate(codes, start=1):
            active = (code > 0).flatten(1).float()
            facts[f"threshold_{number}_active"] = float(active.sum(1).mean())
            facts[f"threshold_{number}_active_share"] = float(active.mean())
        return facts


def _layers(model: nn.Module) -> list[ThresholdCode2d]:
    return [module for module in model.modules() if isinstance(module, ThresholdCode2d)]
