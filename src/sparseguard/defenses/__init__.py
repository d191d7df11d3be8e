"""Defenses: one file each, edits of a blueprint's stages and of the training."""

from sparseguard.defenses.arl import AdversarialRepresentation
from sparseguard.defenses.base import Budget, Companion, Context, Defense, State
from sparseguard.defenses.bido import BilateralDependency
from sparseguard.defenses.cem import ConditionalEntropyMaximization
from sparseguard.defenses.conv_control import ConvControl
from sparseguard.defenses.downsample import Downsample
from sparseguard.defenses.dp_sgd import DpSgd
from sparseguard.defenses.gan import GenerativeAugmentation
from sparseguard.defenses.gaussian_noise import GaussianNoise
from sparseguard.defenses.gong import Gong
from sparseguard.defenses.gong_continual import GongContinual
from sparseguard.defenses.laplace_noise import LaplaceNoise
from sparseguard.defenses.low_rank import LowRank
from sparseguard.defenses.mid import MutualInformationDefense
from sparseguard.defenses.midre import Midre
from sparseguard.defenses.negative_label_smoothing import NegativeLabelSmoothing
from sparseguard.defenses.none import NoDefense
from sparseguard.defenses.quantize import Quantize
from sparseguard.defenses.relu_threshold import ReluThreshold
from sparseguard.defenses.sca import SparseCodingArchitecture
from sparseguard.defenses.sparse_standard import SparseStandard
from sparseguard.defenses.standardize_only import StandardizeOnly

DEFENSES: dict[str, type[Defense]] = {
    "none": NoDefense,
    "gaussian-noise": GaussianNoise,
    "laplace-noise": LaplaceNoise,
    "gan": GenerativeAugmentation,
    "gong": Gong,
    "gong++": GongContinual,
    "bido": BilateralDependency,
    "mid": MutualInformationDefense,
    "dp-sgd": DpSgd,
    "sparse-standard": SparseStandard,
    "sca": SparseCodingArchitecture,
    "negative-label-smoothing": NegativeLabelSmoothing,
    "midre": Midre,
    "cem": ConditionalEntropyMaximization,
    "arl": AdversarialRepresentation,
    "quantize": Quantize,
    "standardize-only": StandardizeOnly,
    "conv-control": ConvControl,
    "relu-threshold": ReluThreshold,
    "low-rank": LowRank,
    "downsample": Downsample,
}

__all__ = ["DEFENSES", "Budget", "Companion", "Context", "Defense", "State"]
