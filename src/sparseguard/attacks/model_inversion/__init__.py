"""Class inversion (model inversion): attacks that make images of a class from the model's weights."""

from sparseguard.attacks.base import ClassAttack
from sparseguard.attacks.model_inversion.pixel_inversion import PixelInversion
from sparseguard.attacks.model_inversion.plug_and_play import PlugAndPlay

MODEL_INVERSION_ATTACKS: dict[str, type[ClassAttack]] = {
    "plug-and-play": PlugAndPlay,
    "pixel-inversion": PixelInversion,
}

__all__ = ["MODEL_INVERSION_ATTACKS", "PixelInversion", "PlugAndPlay"]
