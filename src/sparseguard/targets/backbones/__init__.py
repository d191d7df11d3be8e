"""Undefended models as blueprints of named stages."""

from sparseguard.core.component_table import ComponentTable
from sparseguard.targets.backbones.base import Backbone
from sparseguard.targets.backbones.conv import Conv
from sparseguard.targets.backbones.linear import Linear, LinearShallow
from sparseguard.targets.backbones.row_linear import RowLinear
from sparseguard.targets.backbones.torchvision import TorchvisionModel

BACKBONES: ComponentTable[type[Backbone]] = ComponentTable(
    "sparseguard.backbones",
    Backbone,
    {
        "linear": Linear,
        "linear-shallow": LinearShallow,
        "conv": Conv,
        "row-linear": RowLinear,
        "torchvision": TorchvisionModel,
    },
)

__all__ = ["BACKBONES", "Backbone"]
