"""Target models: backbones as named stages, and the one loop that trains them."""

from sparseguard.targets.backbones import Backbone, Linear, LinearShallow
from sparseguard.targets.conv import Conv
from sparseguard.targets.fit import Fit, train
from sparseguard.targets.fitted import Fitted
from sparseguard.targets.kept_codes import Keep
from sparseguard.targets.row_linear import RowLinear
from sparseguard.targets.target import Target, state_hash
from sparseguard.targets.torchvision_model import TorchvisionModel

BACKBONES: dict[str, type[Backbone]] = {
    "linear": Linear,
    "linear-shallow": LinearShallow,
    "conv": Conv,
    "row-linear": RowLinear,
    "torchvision": TorchvisionModel,
}

__all__ = ["BACKBONES", "Backbone", "Fit", "Fitted", "Keep", "Target", "state_hash", "train"]
