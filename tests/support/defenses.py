"""Small inputs for the contract tests of defenses, and every defense with quick settings."""

import functools
import zlib
from dataclasses import replace

import torch

from sparseguard.data import DATASETS
from sparseguard.defenses import DEFENSES, Budget, Context, Defense
from sparseguard.defenses.combined import Combined
from sparseguard.targets import BACKBONES
from sparseguard.types import ImageSet

COMBINED = {
    "sca+laplace-noise": {},
    "sca+cem": {},
    "sca+low-rank": {},
    "sca+dp-sgd": {"sca": {"hebbian": False, "backprop": False, "normalization": "group"}},
}
"""Combinations in the documentation, and the settings that they need."""


def make_quick(name: str, **settings: object) -> Defense:
    """A defense of the table with its quick settings, or a combination of such defenses."""
    if name in COMBINED:
        return Combined({part: make_quick(part, **COMBINED[name].get(part, {})) for part in name.split("+")})
    return DEFENSES[name](**{**DEFENSES[name].quick_settings, **settings})


@functools.cache
def private_images() -> ImageSet:
    """100 private images of 14 x 14 pixels."""
    return _shrink(DATASETS["fashion-mini"](private=100).load().private)


@functools.cache
def auxiliary_images() -> ImageSet:
    """100 attacker-side images of the same size."""
    return _shrink(DATASETS["fashion-mini"](auxiliary=100).load().auxiliary)


def _shrink(images: ImageSet) -> ImageSet:
    return ImageSet(pixels=images.pixels[:, :, ::2, ::2].contiguous(), labels=images.labels, classes=images.classes)


def stage_seed(stage: str) -> int:
    """A stage's seed."""
    return zlib.crc32(stage.encode())


@functools.cache
def plain_blueprint(backbone, width, classes, tap="first_linear"):
    """An undefended model with a named tap."""
    return replace(BACKBONES[backbone](width=width).blueprint(classes), tap=tap)


@functools.cache
def prepare_quick(name: str, backbone: str, tap: str = "first_linear"):
    """The state that a defense with quick settings learns in advance."""
    context = Context(
        private=private_images(),
        auxiliary=auxiliary_images(),
        blueprint=plain_blueprint(backbone, 16, 10, tap),
        seed=3,
        budget=Budget(images=90, batch_size=30, epochs=2),
    )
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        return make_quick(name).prepare(context)
