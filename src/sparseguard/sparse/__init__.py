"""Convolutional sparse coding as a differentiable layer. Needs torch, and nothing else of sparseguard."""

from sparseguard.sparse.dictionary import ConvDictionary, random_atoms, unit_norm
from sparseguard.sparse.fista import Fista
from sparseguard.sparse.layer import SparseCode2d, StandardizeImage, standardize
from sparseguard.sparse.learn import correlate, hebbian_update
from sparseguard.sparse.problem import energy, gradient, kkt_residual, largest_eigenvalue
from sparseguard.sparse.solve import DivergedError, Solution, Status, solve

REVISION = 1
"""Raised when codes or updates change; part of every key that rests on them."""

__all__ = [
    "REVISION",
    "ConvDictionary",
    "DivergedError",
    "Fista",
    "Solution",
    "SparseCode2d",
    "StandardizeImage",
    "Status",
    "correlate",
    "energy",
    "gradient",
    "hebbian_update",
    "kkt_residual",
    "largest_eigenvalue",
    "random_atoms",
    "solve",
    "standardize",
    "unit_norm",
]
