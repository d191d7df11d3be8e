"""Feature inversion: attacks that reconstruct an image from its features at the tap."""

from sparseguard.attacks.base import Attack
from sparseguard.attacks.feature_inversion.decoder import RidgeConv, RidgeMLP
from sparseguard.attacks.feature_inversion.gan_inversion import PriorInversion
from sparseguard.attacks.feature_inversion.local_ridge import LocalRidge
from sparseguard.attacks.feature_inversion.optimization import GradientInversion
from sparseguard.attacks.feature_inversion.ridge import Ridge
from sparseguard.attacks.feature_inversion.sparse_code_decoder import CodeDecoder
from sparseguard.attacks.feature_inversion.two_stage import TwoStage

FEATURE_ATTACKS: dict[str, type[Attack]] = {
    "ridge": Ridge,
    "local-ridge": LocalRidge,
    "ridge-mlp": RidgeMLP,
    "ridge-conv": RidgeConv,
    "two-stage": TwoStage,
    "code-decoder": CodeDecoder,
    "gradient-inversion": GradientInversion,
    "prior-inversion": PriorInversion,
}

__all__ = [
    "FEATURE_ATTACKS",
    "CodeDecoder",
    "GradientInversion",
    "LocalRidge",
    "PriorInversion",
    "Ridge",
    "RidgeConv",
    "RidgeMLP",
    "TwoStage",
]
