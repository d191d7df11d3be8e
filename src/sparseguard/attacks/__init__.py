"""Attacks: one file each, all holding a `Leak` and never the model."""

from sparseguard.attacks.base import Attack, AttackContext
from sparseguard.attacks.baselines.class_mean import ClassMean
from sparseguard.attacks.baselines.mean_image import MeanImage
from sparseguard.attacks.baselines.nearest_neighbor import NearestPublicImage
from sparseguard.attacks.class_base import ClassAttack, ClassContext
from sparseguard.attacks.feature_inversion.decoder import RidgeConv, RidgeMLP
from sparseguard.attacks.feature_inversion.gan_inversion import PriorInversion
from sparseguard.attacks.feature_inversion.local_ridge import LocalRidge
from sparseguard.attacks.feature_inversion.optimization import GradientInversion
from sparseguard.attacks.feature_inversion.ridge import Ridge
from sparseguard.attacks.feature_inversion.sparse_code_decoder import CodeDecoder
from sparseguard.attacks.feature_inversion.two_stage import TwoStage
from sparseguard.attacks.model_inversion.pixel_inversion import PixelInversion
from sparseguard.attacks.model_inversion.plug_and_play import PlugAndPlay
from sparseguard.core.component_table import ComponentTable

ATTACKS: ComponentTable[type[Attack]] = ComponentTable(
    "sparseguard.attacks",
    Attack,
    {
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
    },
)

CLASS_ATTACKS: ComponentTable[type[ClassAttack]] = ComponentTable(
    "sparseguard.class_attacks",
    ClassAttack,
    {
        "plug-and-play": PlugAndPlay,
        "pixel-inversion": PixelInversion,
    },
)

__all__ = ["ATTACKS", "CLASS_ATTACKS", "Attack", "AttackContext", "ClassAttack", "ClassContext"]
