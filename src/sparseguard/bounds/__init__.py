"""Bounds on reconstruction that hold whatever decoder is trained."""

from sparseguard.bounds._destandardize import PixelRange
from sparseguard.bounds._layers import Layer, list_layers
from sparseguard.bounds._noise_model import NoiseFacts
from sparseguard.bounds._suite import BOUNDS, compute_bounds
from sparseguard.bounds.base import Bound, Decode, Meaning
from sparseguard.bounds.bayes_noise import PoolBound, compute_pool_bound
from sparseguard.bounds.layerwise import LayerReconstruction, LayerwiseReconstruction
from sparseguard.bounds.metamers import Metamer, find_metamer
from sparseguard.bounds.null_space import AffineMap, NullSpace, fit_affine_map, split_null_space
from sparseguard.bounds.sparse_inversion import Inversion, hidden_fraction, invert_code

REVISION = 1
"""Raised when bounds change; part of every key that depends on them."""

__all__ = [
    "BOUNDS",
    "REVISION",
    "AffineMap",
    "Bound",
    "Decode",
    "Inversion",
    "Layer",
    "LayerReconstruction",
    "LayerwiseReconstruction",
    "Meaning",
    "Metamer",
    "NoiseFacts",
    "NullSpace",
    "PixelRange",
    "PoolBound",
    "compute_bounds",
    "compute_pool_bound",
    "find_metamer",
    "fit_affine_map",
    "hidden_fraction",
    "invert_code",
    "list_layers",
    "split_null_space",
]
