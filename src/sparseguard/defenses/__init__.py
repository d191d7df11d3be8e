"""Defenses: one file each, edits of a blueprint's stages and of the training."""

from sparseguard.core.component_table import ComponentTable
from sparseguard.defenses.augmentation.gan import GenerativeAugmentation
from sparseguard.defenses.augmentation.gong import Gong
from sparseguard.defenses.augmentation.gong_continual import GongContinual
from sparseguard.defenses.augmentation.midre import Midre
from sparseguard.defenses.base import AuxiliaryNetwork, Budget, Context, Defense, State
from sparseguard.defenses.controls.conv import ConvControl
from sparseguard.defenses.controls.downsample import Downsample
from sparseguard.defenses.controls.low_rank import LowRank
from sparseguard.defenses.controls.none import NoDefense
from sparseguard.defenses.controls.relu_threshold import ReluThreshold
from sparseguard.defenses.controls.standardize_only import StandardizeOnly
from sparseguard.defenses.differential_privacy.dp_sgd import DpSgd
from sparseguard.defenses.perturbation.gaussian_noise import GaussianNoise
from sparseguard.defenses.perturbation.laplace_noise import LaplaceNoise
from sparseguard.defenses.perturbation.quantize import Quantize
from sparseguard.defenses.regularization.arl import AdversarialRepresentation
from sparseguard.defenses.regularization.bido import BilateralDependency
from sparseguard.defenses.regularization.cem import ConditionalEntropyMaximization
from sparseguard.defenses.regularization.mid import MutualInformationDefense
from sparseguard.defenses.regularization.negative_label_smoothing import NegativeLabelSmoothing
from sparseguard.defenses.sparse_coding.sca import SparseCodingArchitecture
from sparseguard.defenses.sparse_coding.sparse_standard import SparseStandard

DEFENSES: ComponentTable[type[Defense]] = ComponentTable(
    "sparseguard.defenses",
    Defense,
    {
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
    },
)

__all__ = ["DEFENSES", "AuxiliaryNetwork", "Budget", "Context", "Defense", "State"]
