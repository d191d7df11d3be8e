"""Training of a class-conditional GAN."""

from __future__ import annotations

import copy
import math
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.config import settings
from sparseguard.core.errors import TrainingError
from sparseguard.core.progress import Progress
from sparseguard.core.seeding import derive
from sparseguard.generators.conditional_gan.networks import ConditionalGenerator, Discriminator
from sparseguard.types import ImageSet

AVERAGING = 0.995
"""Weight of the old value in the generator's running mean at each step, after the first ones."""


@settings
class GanFit:
    """Settings of a conditional GAN and its training.

    Args:
        epochs: passes over the images.
        batch_size: real images a step, and as many fakes.
        lr: of Adam, for both networks, with betas (0.5, 0.999).
        latent: length of the noise.
        width: channels of both networks at full size.
    """

    epochs: Annotated[int, Field(ge=1)] = 25
    batch_size: Annotated[int, Field(ge=2)] = 32
    lr: Annotated[float, Field(gt=0)] = 5e-4
    latent: Annotated[int, Field(ge=1)] = 32
    width: Annotated[int, Field(ge=1)] = 16


def train_conditional_gan(
    images: ImageSet, settings: GanFit, *, seed: int, device: torch.device, progress: Progress, label: str
) -> ConditionalGenerator:
    r"""Train generator G and discriminator D in turn with the non-saturating loss and return G in evaluation mode.

    .. math:: L_D = -\log\sigma(D(x,y)) - \log\sigma(-D(G(z,y'),y')), \quad L_G = -\log\sigma(D(G(z,y'),y'))

    The classes y' are drawn evenly from those there are images of. The returned generator has the running mean of G's
    weights, and normalizes with statistics taken for these weights.

    Args:
        images: to learn from; any number.
        settings: of networks and training.
        seed: of every random draw.
        device: where to compute; the generator stays there.
        progress: where batches are reported.
        label: of the training, there and in errors.

    Raises:
        TrainingError: when a loss is not finite, or there are no images.

    Source: I. Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014 (loss); T. Miyato, M. Koyama, "cGANs with
    Projection Discriminator", ICLR 2018 (class projection in D); A. Radford, L. Metz, S. Chintala, "Unsupervised
    Representation Learning with Deep Convolutional Generative Adversarial Networks", ICLR 2016 (layers, Adam's betas).
    Sizes are ours.
    """
    if len(images) == 0:
        raise TrainingError(f"{label}: a generator needs images to learn from.")
    class_count, present = len(images.classes), images.labels.unique().to(device)
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(derive(purpose="conditional gan", seed=seed))
        pair = GanTrainer(
            ConditionalGenerator(images.shape, class_count, latent=settings.latent, width=settings.width).to(device),
            Discriminator(images.shape, class_count, width=settings.width).to(device),
            lr=settings.lr,
        )
        steps = math.ceil(len(images) / settings.batch_size)
        with progress.task(label, settings.epochs * steps) as advance:
            for epoch in range(settings.epochs):
                losses = torch.zeros(2, device=device)
                for index in torch.randperm(len(images)).split(settings.batch_size):
                    classes = present[torch.randint(len(present), (settings.batch_size,), device=device)]
                    losses += pair.step(images.batch(index).to(device), images.labels[index].to(device), classes)
                    advance(1)
                if not torch.isfinite(losses).all():
                    raise TrainingError(f"{label}: a loss of the GAN is not finite in epoch {epoch + 1}.")
        return pair.finish(present)


class GanTrainer:
    """Generator and discriminator in training."""

    def __init__(self, generator: ConditionalGenerator, discriminator: Discriminator, *, lr: float) -> None:
        self.generator, self.discriminator = generator.train(), discriminator.train()
        self.mean = copy.deepcopy(generator)
        self.of_generator = torch.optim.Adam(generator.parameters(), lr=lr, betas=(0.5, 0.999))
        self.of_discriminator = torch.optim.Adam(discriminator.parameters(), lr=lr, betas=(0.5, 0.999))
        self.steps = 0

    def step(
        self, real: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], classes: Int[Tensor, " m"]
    ) -> Float[Tensor, "2"]:
        """Take a step with each and return both losses."""
        noise = torch.randn(len(classes), self.generator.latent, device=classes.device)
        fakes = self.generator(noise, classes)
        of_real, of_fakes = self.discriminator(real, labels), self.discriminator(fakes.detach(), classes)
        discriminator_loss = F.softplus(-of_real).mean() + F.softplus(of_fakes).mean()
        self.of_discriminator.zero_grad(set_to_none=True)
        discriminator_loss.backward()
        self.of_discriminator.step()
        generator_loss = F.softplus(-self.discriminator(fakes, classes)).mean()
        self.of_generator.zero_grad(set_to_none=True)
        generator_loss.backward()
        self.of_generator.step()
        self._average()
        return torch.stack([discriminator_loss.detach(), generator_loss.detach()])

    @torch.no_grad()
    def _average(self) -> None:
        self.steps += 1
        decay = min(AVERAGING, self.steps / (self.steps + 10))
        for mean, now in zip(self.mean.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)

    @torch.no_grad()
    def finish(self, present: Int[Tensor, " k"]) -> ConditionalGenerator:
        """Return the mean generator, its normalization's statistics taken over ten batches of all classes."""
        for module in self.mean.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        for _ in range(10):
            classes = present[torch.arange(200, device=present.device) % len(present)]
            self.mean(torch.randn(len(classes), self.mean.latent, device=classes.device), classes)
        return self.mean.eval().requires_grad_(False)
