"""Target models: backbones and the training loop."""

from sparseguard.targets.backbones import BACKBONES, Backbone
from sparseguard.targets.target import Target, state_hash
from sparseguard.targets.training.code_cache.disk import CodeCache
from sparseguard.targets.training.history import TrainingHistory
from sparseguard.targets.training.trainer import Fit, train

__all__ = ["BACKBONES", "Backbone", "CodeCache", "Fit", "Target", "TrainingHistory", "state_hash", "train"]
