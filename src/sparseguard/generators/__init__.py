"""Image generators: fakes for defenses, and priors, which attacks search for images that a model answers to."""

from sparseguard.generators.base import PRIOR_REVISION, Prior
from sparseguard.generators.card import PriorCard, fingerprints, shared_images
from sparseguard.generators.conditional_gan.networks import ConditionalGenerator, Discriminator
from sparseguard.generators.conditional_gan.training import GanFit, train_conditional_gan
from sparseguard.generators.library import (
    count_fingerprints,
    find_prior,
    load_prior,
    prior_fingerprint,
    read_card,
    save_prior,
    shipped_priors,
)
from sparseguard.generators.sampling import grid_png, samples
from sparseguard.generators.stylegan.prior import StylePrior, style_card, style_tensors
from sparseguard.generators.stylegan.training import FittedStyle, StyleFit, train_style_gan

REVISION = 1
"""Of the conditional GAN."""

__all__ = [
    "PRIOR_REVISION",
    "REVISION",
    "ConditionalGenerator",
    "Discriminator",
    "FittedStyle",
    "GanFit",
    "Prior",
    "PriorCard",
    "StyleFit",
    "StylePrior",
    "count_fingerprints",
    "find_prior",
    "fingerprints",
    "grid_png",
    "load_prior",
    "prior_fingerprint",
    "read_card",
    "samples",
    "save_prior",
    "shared_images",
    "shipped_priors",
    "style_card",
    "style_tensors",
    "train_conditional_gan",
    "train_style_gan",
]
