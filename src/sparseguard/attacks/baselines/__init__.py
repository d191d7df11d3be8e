"""Floors: trivial attacks that every other one must beat."""

from sparseguard.attacks.base import Attack
from sparseguard.attacks.baselines.class_mean import ClassMean
from sparseguard.attacks.baselines.mean_image import MeanImage
from sparseguard.attacks.baselines.nearest_neighbor import NearestAuxiliaryImage

FLOOR_ATTACKS: dict[str, type[Attack]] = {
    "mean-image": MeanImage,
    "class-mean": ClassMean,
    "nearest-neighbor": NearestAuxiliaryImage,
}

__all__ = ["FLOOR_ATTACKS", "ClassMean", "MeanImage", "NearestAuxiliaryImage"]
