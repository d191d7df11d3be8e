"""Attacks: one file each, all holding a `Leak` and never the model."""

from sparseguard.attacks.base import Attack, AttackContext
from sparseguard.attacks.class_mean import ClassMean
from sparseguard.attacks.mean_image import MeanImage
from sparseguard.attacks.nearest import NearestPublicImage
from sparseguard.attacks.ridge import Ridge
from sparseguard.attacks.ridge_conv import RidgeConv

ATTACKS: dict[str, type[Attack]] = {
    "mean-image": MeanImage,
    "class-mean": ClassMean,
    "nearest-public": NearestPublicImage,
    "ridge": Ridge,
    "ridge-conv": RidgeConv,
}

__all__ = ["ATTACKS", "Attack", "AttackContext"]
