"""Defenses: one file each, edits of a blueprint's stages and of the training."""

from sparseguard.defenses.base import Budget, Companion, Context, Defense, State
from sparseguard.defenses.gaussian_noise import GaussianNoise
from sparseguard.defenses.low_rank import LowRank
from sparseguard.defenses.none import NoDefense
from sparseguard.defenses.sca import SparseCodingArchitecture
from sparseguard.defenses.sparse_standard import SparseStandard
from sparseguard.defenses.standardize_only import StandardizeOnly

DEFENSES: dict[str, type[Defense]] = {
    "none": NoDefense,
    "standardize-only": StandardizeOnly,
    "low-rank": LowRank,
    "gaussian-noise": GaussianNoise,
    "sparse-standard": SparseStandard,
    "sca": SparseCodingArchitecture,
}

__all__ = ["DEFENSES", "Budget", "Companion", "Context", "Defense", "State"]
