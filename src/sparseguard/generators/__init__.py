"""Image generators learned from labelled images: fakes for defenses, priors for attacks."""

from sparseguard.generators.conditional_gan import GanFit, train_conditional_gan
from sparseguard.generators.networks import ConditionalGenerator, Discriminator

REVISION = 1

__all__ = ["REVISION", "ConditionalGenerator", "Discriminator", "GanFit", "train_conditional_gan"]
