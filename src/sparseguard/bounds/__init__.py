"""What a perfect attacker could know: bounds that hold whatever decoder is trained."""

from sparseguard.bounds._destandardize import PixelRange
from sparseguard.bounds._layers import Wall, list_layers
from sparseguard.bounds._noise_model import NoiseFacts
from sparseguard.bounds._suite import BOUNDS, compute_bounds
from sparseguard.bounds.base import Bound, Decode, Meaning
from sparseguard.bounds.bayes_noise import PoolBound, pool_bound
from sparseguard.bounds.layerwise import Level, Waterfall
from sparseguard.bounds.metamers import Metamer, NeedsScipyError, find_metamer
from sparseguard.bounds.null_space import AffineMap, NullSpace, affine_map, null_space
from sparseguard.bounds.sparse_inversion import Inversion, hidden_fraction, invert_code

REVISION = 1
"""Raised when bounds come out otherwise; part of every key that rests on them."""

__all__ = [
    "BOUNDS",
    "REVISION",
    "AffineMap",
    "Bound",
    "Decode",
    "Inversion",
    "Level",
    "Meaning",
    "Metamer",
    "NeedsScipyError",
    "NoiseFacts",
    "NullSpace",
    "PixelRange",
    "PoolBound",
    "Wall",
    "Waterfall",
    "affine_map",
    "bounds_of",
    "find_metamer",
    "hidden_fraction",
    "invert_code",
    "null_space",
    "pool_bound",
    "walls_until",
]
