"""Settings with which every defense is trained in a second, and what the contract tests share."""

import functools
import zlib
from dataclasses import replace

import torch

from sparseguard.data import DATASETS
from sparseguard.defenses import DEFENSES, Budget, Context, Defense
from sparseguard.defenses.combined import Combined
from sparseguard.types import ImageSet

QUICK: dict[str, dict[str, object]] = {
    "low-rank": {"rank": 4},
    "downsample": {"factor": 2},
    "negative-label-smoothing": {"start": 0.0, "full": 0.25},
    "gan": {"epochs": 1},
    "gong": {"epochs": 1, "inverted": 20, "steps": 5, "draws": 2},
    "gong++": {"epochs": 1, "inverted": 20, "steps": 5, "draws": 2},
}
"""Settings of defenses that would take long with their defaults."""

COMBINED = {
    "sca+laplace-noise": {},
    "sca+cem": {},
    "sca+low-rank": {},
    "sca+dp-sgd": {"sca": {"hebbian": False, "backprop": False, "normalization": "group"}},
}
"""Combinations that users are told of."""


def quick(name: str) -> Defense:
    """A defense of the table, or a combination, with quick settings."""
    if name in COMBINED:
        parts = name.split("+")
        return Combined(
            {part: DEFENSES[part](**{**QUICK.get(part, {}), **COMBINED[name].get(part, {})}) for part in parts}
        )
    return DEFENSES[name](**QUICK.get(name, {}))


@functools.cache
def few_private() -> ImageSet:
    """100 private images of 14 x 14 pixels."""
    whole = DATASETS["fashion-mini"](private=100).load().private
    return ImageSet(pixels=whole.pixels[:, :, ::2, ::2].contiguous(), labels=whole.labels, classes=whole.classes)


@functools.cache
def few_public() -> ImageSet:
    """100 attacker-side images of the same size."""
    whole = DATASETS["fashion-mini"](auxiliary=100).load().auxiliary
    return ImageSet(pixels=whole.pixels[:, :, ::2, ::2].contiguous(), labels=whole.labels, classes=whole.classes)


def seed_of(stage: str) -> int:
    """A stage's seed."""
    return zlib.crc32(stage.encode())


def context_of(blueprint, private, auxiliary, epochs=2):
    """What a defense is given beforehand."""
    budget = Budget(images=90, batch_size=30, epochs=epochs)
    return Context(private=private, auxiliary=auxiliary, blueprint=blueprint, seed=3, budget=budget)


@functools.cache
def plain(backbone, width, classes, tap="first_linear"):
    """An undefended model that knows where it is attacked."""
    from sparseguard.targets import BACKBONES

    return replace(BACKBONES[backbone](width=width).blueprint(classes), tap=tap)


@functools.cache
def prepared(name: str, backbone: str, tap: str = "first_linear"):
    """What a defense learns beforehand."""
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        blueprint = plain(backbone, 16, 10, tap)
        return quick(name).prepare(context_of(blueprint, few_private(), few_public()))
