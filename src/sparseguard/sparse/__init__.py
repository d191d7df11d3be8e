"""Differentiable sparse-coding layers. Needs torch, and nothing else of sparseguard."""

from sparseguard.sparse._adjoint import (
    Detached,
    Gradient,
    Implicit,
    NotConvergedError,
    NotConvergedWarning,
    OneStep,
    StraightThrough,
    Unrolled,
)
from sparseguard.sparse._base_layer import REVISION, SparseCoding, StandardizeImage, standardize
from sparseguard.sparse._dictionary import ConvDictionary, DenseDictionary, Dictionary, random_atoms, unit_norm
from sparseguard.sparse._dictionary_learning import LearningEpoch, learn_dictionary
from sparseguard.sparse._hebbian import hebbian_update
from sparseguard.sparse._iteration import Trace
from sparseguard.sparse._layers import SparseCode2d, SparseCodeDense
from sparseguard.sparse._lipschitz import largest_eigenvalue, lipschitz_bound
from sparseguard.sparse._problem import Problem
from sparseguard.sparse._solution import DivergedError, Solution, Status, solve
from sparseguard.sparse._solvers.base import Method
from sparseguard.sparse._solvers.fista import Fista
from sparseguard.sparse._solvers.lca import Lca

__all__ = [
    "REVISION",
    "ConvDictionary",
    "DenseDictionary",
    "Detached",
    "Dictionary",
    "DivergedError",
    "Fista",
    "Gradient",
    "Implicit",
    "Lca",
    "LearningEpoch",
    "Method",
    "NotConvergedError",
    "NotConvergedWarning",
    "OneStep",
    "Problem",
    "Solution",
    "SparseCode2d",
    "SparseCodeDense",
    "SparseCoding",
    "StandardizeImage",
    "Status",
    "StraightThrough",
    "Trace",
    "Unrolled",
    "hebbian_update",
    "largest_eigenvalue",
    "learn_dictionary",
    "lipschitz_bound",
    "random_atoms",
    "solve",
    "standardize",
    "unit_norm",
]
