"""Target models: backbones as named stages, and the one loop that trains them."""

from sparseguard.targets.backbones.conv import Conv
from sparseguard.targets.backbones.linear import Backbone, Linear, LinearShallow
from sparseguard.targets.backbones.row_linear import RowLinear
from sparseguard.targets.backbones.torchvision import TorchvisionModel
from sparseguard.targets.target import Target, state_hash
from sparseguard.targets.training.code_cache.disk import Keep
from sparseguard.targets.training.history import Fitted
from sparseguard.targets.training.trainer import Fit, train

BACKBONES: dict[str, type[Backbone]] = {
    "linear": Linear,
    "linear-shallow": LinearShallow,
    "conv": Conv,
    "row-linear": RowLinear,
    "torchvision": TorchvisionModel,
}

__all__ = ["BACKBONES", "Backbone", "Fit", "Fitted", "Keep", "Target", "state_hash", "train"]
