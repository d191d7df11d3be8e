"""Sparse coding as differentiable layers. Needs torch, and nothing else of sparseguard."""

from sparseguard.sparse.adjoint import (
    Detached,
    Gradient,
    Implicit,
    NotConvergedError,
    NotConvergedWarning,
    OneStep,
    StraightThrough,
    Unrolled,
)
from sparseguard.sparse.bound import largest_eigenvalue, lipschitz_bound
from sparseguard.sparse.coding import REVISION, SparseCoding, StandardizeImage, standardize
from sparseguard.sparse.dictionary import ConvDictionary, DenseDictionary, Dictionary, random_atoms, unit_norm
from sparseguard.sparse.fista import Fista
from sparseguard.sparse.iterate import Trace
from sparseguard.sparse.layer import SparseCode2d, SparseCodeDense
from sparseguard.sparse.lca import Lca
from sparseguard.sparse.learn import hebbian_update
from sparseguard.sparse.method import Method
from sparseguard.sparse.pretrain import LearningEpoch, learn_dictionary
from sparseguard.sparse.problem import Problem
from sparseguard.sparse.solve import DivergedError, Solution, Status, solve

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
