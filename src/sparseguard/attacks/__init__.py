"""Attacks: one file each, all holding a `Leak` and never the model."""

from sparseguard.attacks.base import Attack, AttackContext
from sparseguard.attacks.class_mean import ClassMean
from sparseguard.attacks.code_decoder import CodeDecoder
from sparseguard.attacks.gradient_inversion import GradientInversion
from sparseguard.attacks.local_ridge import LocalRidge
from sparseguard.attacks.mean_image import MeanImage
from sparseguard.attacks.nearest import NearestPublicImage
from sparseguard.attacks.ridge import Ridge
from sparseguard.attacks.ridge_conv import RidgeConv
from sparseguard.attacks.ridge_mlp import RidgeMLP
from sparseguard.attacks.two_stage import TwoStage

ATTACKS: dict[str, type[Attack]] = {
    "mean-image": MeanImage,
    "class-mean": ClassMean,
    "nearest-public": NearestPublicImage,
    "ridge": Ridge,
    "local-ridge": LocalRidge,
    "ridge-mlp": RidgeMLP,
    "ridge-conv": RidgeConv,
    "two-stage": TwoStage,
    "code-decoder": CodeDecoder,
    "gradient-inversion": GradientInversion,
}

__all__ = ["ATTACKS", "Attack", "AttackContext"]
