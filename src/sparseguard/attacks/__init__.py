"""Attacks: one file each, all holding a `Leak` and never the model."""

from sparseguard.attacks.base import Attack, AttackContext
from sparseguard.attacks.class_base import ClassAttack, ClassContext
from sparseguard.attacks.class_mean import ClassMean
from sparseguard.attacks.code_decoder import CodeDecoder
from sparseguard.attacks.gradient_inversion import GradientInversion
from sparseguard.attacks.local_ridge import LocalRidge
from sparseguard.attacks.mean_image import MeanImage
from sparseguard.attacks.nearest import NearestPublicImage
from sparseguard.attacks.pixel_inversion import PixelInversion
from sparseguard.attacks.plug_and_play import PlugAndPlay
from sparseguard.attacks.prior_inversion import PriorInversion
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
    "prior-inversion": PriorInversion,
}

CLASS_ATTACKS: dict[str, type[ClassAttack]] = {
    "plug-and-play": PlugAndPlay,
    "pixel-inversion": PixelInversion,
}

__all__ = ["ATTACKS", "CLASS_ATTACKS", "Attack", "AttackContext", "ClassAttack", "ClassContext"]
