"""Image generators: conditional GANs for defenses, and generative priors that attacks search."""

from sparseguard.generators.base import PRIOR_REVISION, Prior
from sparseguard.generators.card import PriorCard, count_shared_images, fingerprint_images
from sparseguard.generators.conditional_gan.networks import ConditionalGenerator, Discriminator
from sparseguard.generators.conditional_gan.training import GanFit, train_conditional_gan
from sparseguard.generators.library import load_prior
from sparseguard.generators.sampling import draw_samples, encode_grid
from sparseguard.generators.storage import (
    count_fingerprints,
    find_prior,
    hash_prior,
    list_shipped_priors,
    read_card,
    save_prior,
)
from sparseguard.generators.stylegan.prior import StylePrior, describe_style_prior, style_prior_tensors
from sparseguard.generators.stylegan.training import StyleFit, TrainedStyleGan, train_style_gan

REVISION = 1
"""Revision of the conditional GAN."""

__all__ = [
    "PRIOR_REVISION",
    "REVISION",
    "ConditionalGenerator",
    "Discriminator",
    "GanFit",
    "Prior",
    "PriorCard",
    "StyleFit",
    "StylePrior",
    "TrainedStyleGan",
    "count_fingerprints",
    "count_shared_images",
    "describe_style_prior",
    "draw_samples",
    "encode_grid",
    "find_prior",
    "fingerprint_images",
    "hash_prior",
    "list_shipped_priors",
    "load_prior",
    "read_card",
    "save_prior",
    "style_prior_tensors",
    "train_conditional_gan",
    "train_style_gan",
]
