"""Control with SCA's atoms and threshold, without competition between atoms."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, final

from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import OddSize, settings
from sparseguard.core.staged_model import Blueprint, Shape, StagedModel
from sparseguard.defenses.base import Defense, State
from sparseguard.defenses.sparse_coding._inspect import find_inactive_layer, run_with_hooks
from sparseguard.defenses.sparse_coding._normalization import MIXES, Normalization, build_normalization
from sparseguard.defenses.sparse_coding._threshold_layer import ThresholdCode2d


@final
@settings
class ReluThreshold(Defense):
    r"""SCA with a thresholded correlation instead of every sparse code.

    .. math:: R(X) = \mathrm{relu}(X * W - \lambda)

    X is standardized as in SCA, and the initial atoms W are those of SCA at the same seed. Atoms do not compete
    for the same part of an image, so more of them are active. It separates the effect of
    sparse coding from that of a random filter and a threshold.

    Args:
        lambd: threshold.
        features: atoms of each layer.
        kernel_size: side of the square atoms; odd.
        backprop: gradients into the dictionaries of layers 2, 3, ...; after each step atoms have norm 1 again.
        normalization: after each layer: ``batch``, ``group`` (each image alone) or ``none``.

    Source: ours (control).

    Differs: it is no published defense. Unlike SCA it has no local update, which has no meaning without a
    reconstruction.

    Limits: at the same lambda it has another number of active coefficients than SCA; ``threshold_1_active`` and
    ``sparse_1_active`` are in the records.

    Released code: not in it.
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "control: SCA's atoms and threshold without competition between atoms"
    source: ClassVar[str] = "ours (control)"
    is_control: ClassVar[bool] = True
    lambd: Annotated[float, Field(ge=0)] = 0.5
    features: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (16, 28)
    kernel_size: OddSize = 5
    backprop: bool = True
    normalization: Normalization = "batch"

    def find_unaccounted_access(self) -> str | None:
        """Return that batch normalization mixes the images of a batch."""
        return MIXES if self.normalization == "batch" else None

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Insert the first layer before the stem as a stage, and the other layers into the stem."""

        def build_codes(shape: Shape) -> nn.Module:
            return ThresholdCode2d(shape[0], self.features[0], self.kernel_size, lambd=self.lambd)

        def build_stem(shape: Shape) -> nn.Module:
            modules = [build_normalization(self.normalization, shape[0])]
            for channels, features in pairwise(self.features):
                modules += [
                    ThresholdCode2d(channels, features, self.kernel_size, lambd=self.lambd, backprop=self.backprop),
                    build_normalization(self.normalization, features),
                ]
            return nn.Sequential(*modules)

        return blueprint.insert_before("stem", "codes", build_codes).replace("stem", build_stem)

    def on_step_end(self, model: StagedModel) -> None:
        """Rescale trainable atoms to norm 1."""
        for layer in _find_layers(model):
            if layer.learns:
                layer.renormalize()

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Check every layer's codes."""
        layers = _find_layers(model)
        return find_inactive_layer(model, images, "threshold layer", layers, [layer.lambd == 0 for layer in layers])

    def facts(self, model: StagedModel, images: Tensor, state: State) -> dict[str, float]:
        """Return how many coefficients of each layer are active in an image, and their fraction of all."""
        layers, codes = _find_layers(model), list[Tensor]()
        run_with_hooks(model, images, layers, lambda _, code: codes.append(code))
        facts: dict[str, float] = {}
        for number, code in enumerate(codes, start=1):
            active = (code > 0).flatten(1).float()
            facts[f"threshold_{number}_active"] = float(active.sum(1).mean())
            facts[f"threshold_{number}_active_share"] = float(active.mean())
        return facts


def _find_layers(model: nn.Module) -> list[ThresholdCode2d]:
    return [module for module in model.modules() if isinstance(module, ThresholdCode2d)]
