"""What a perfect attacker could know: bounds that hold whatever decoder is trained."""

from sparseguard.bounds.base import Bound, Decode, Meaning
from sparseguard.bounds.bayes import PoolBound, pool_bound
from sparseguard.bounds.inversion import Inversion, hidden_fraction, invert_code
from sparseguard.bounds.linear import LinearMap, fit_linear
from sparseguard.bounds.metamers import Metamer, NeedsScipyError, find_metamer
from sparseguard.bounds.noise import NoiseFacts
from sparseguard.bounds.null_space import AffineMap, NullSpace, affine_map, null_space
from sparseguard.bounds.of_model import BOUNDS, bounds_of
from sparseguard.bounds.statistics import PixelRange
from sparseguard.bounds.walls import Wall, walls_until
from sparseguard.bounds.waterfall import Level, Waterfall

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
    "LinearMap",
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
    "fit_linear",
    "hidden_fraction",
    "invert_code",
    "null_space",
    "pool_bound",
    "walls_until",
]
