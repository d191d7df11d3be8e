"""Target models: backbones as named stages, and the one loop that trains them."""

from sparseguard.targets.backbones import BACKBONES, Backbone
from sparseguard.targets.codes import Keep
from sparseguard.targets.fit import Fit, train
from sparseguard.targets.fitted import Fitted
from sparseguard.targets.target import Target, state_hash

__all__ = ["BACKBONES", "Backbone", "Fit", "Fitted", "Keep", "Target", "state_hash", "train"]
