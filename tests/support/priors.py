"""A style-based prior with random weights, small enough for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sparseguard.generators import PriorCard, StylePrior, fingerprint_images, save_prior
from sparseguard.generators.stylegan.networks import StyleDiscriminator, StyleGenerator
from sparseguard.types import ImageSet

SIZES = {"latent": 8, "width": 4, "most": 2, "depth": 2}


def tiny_prior(shape: tuple[int, int, int] = (1, 12, 12), *, discriminator: bool = False, **card: Any) -> StylePrior:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = StyleGenerator(shape, **SIZES)
        net.mean_w.copy_(net.mapping(torch.randn(500, 8)).mean(0).detach())
        critic = StyleDiscriminator(shape, width=4, most=2) if discriminator else None
    sizes = {"latent": (8,), "num_ws": net.num_ws, "w_dim": 8}
    described = PriorCard(name="tiny", kind="style", shape=shape, construction=SIZES, **{**sizes, **card})
    return StylePrior(described, None, net, critic)


def tiny_folder(folder: Path, *, known: ImageSet | None, shape: tuple[int, int, int] = (1, 28, 28), **card: Any) -> str:
    """Write such a prior, said to have been trained on ``known``; return its folder as a recipe names it."""
    prior = tiny_prior(shape, **card)
    fingerprints = None if known is None else fingerprint_images(known)
    save_prior(folder, prior.card, fingerprints, dict(prior.generator.state_dict()))
    return str(folder)
