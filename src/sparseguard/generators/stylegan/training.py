"""Training of the style-based generator: resumable, also on few images."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sparseguard.core.checkpoint import load_checkpoint, save_checkpoint
from sparseguard.core.config import describe, settings
from sparseguard.core.errors import StoreError, TrainingError
from sparseguard.core.progress import Progress
from sparseguard.core.seeding import derive
from sparseguard.generators.stylegan.augmentation import AugmentationProbability, augment_images
from sparseguard.generators.stylegan.networks import StyleDiscriminator, StyleGenerator
from sparseguard.types import ImageSet

BETAS = (0.0, 0.99)
MEAN_W = 0.005
"""Weight of a batch's mean w in the running mean, each step."""
MIXED = 0.5
"""Fraction of fakes made with two different w, so that neighboring layers do not rely on each other."""
SAVE_EVERY = 60.0
"""Seconds between checkpoints, at least."""
MEASURED = 2048
"""Fakes whose distance to real images is measured."""

Distance = Callable[[Float[Tensor, "n c h w"]], float]


@settings
class StyleFit:
    """Settings of a style-based prior and its training.

    Args:
        images: real images in all, repetitions counted.
        batch_size: real images a step, and as many fakes.
        lr: of Adam, for both networks, with betas (0, 0.99).
        latent: length of z and w.
        width: channels at full size.
        most: channels are at most so many times ``width``.
        depth: dense layers of the mapping network.
        r1: weight gamma of the gradient penalty.
        r1_every: steps between penalties, each weighted by as many.
        half_life: images after which old weights count half in the generator's running mean.
        adaptive: whether augmentation adapts to how sure the discriminator is; else there is none.
        judge_every: images between measurements of the running mean.
    """

    images: Annotated[int, Field(ge=1)] = 300_000
    batch_size: Annotated[int, Field(ge=2)] = 32
    lr: Annotated[float, Field(gt=0)] = 2.5e-3
    latent: Annotated[int, Field(ge=2)] = 64
    width: Annotated[int, Field(ge=1)] = 16
    most: Annotated[int, Field(ge=1)] = 4
    depth: Annotated[int, Field(ge=1)] = 4
    r1: Annotated[float, Field(ge=0)] = 0.2
    r1_every: Annotated[int, Field(ge=1)] = 8
    half_life: Annotated[float, Field(gt=0)] = 5_000
    adaptive: bool = True
    judge_every: Annotated[int, Field(ge=1)] = 20_000


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedStyleGan:
    """A trained pair.

    Args:
        generator: the running mean, in evaluation mode.
        discriminator: in evaluation mode.
        history: measurements: images so far, distance, probability of augmentation.
    """

    generator: StyleGenerator
    discriminator: StyleDiscriminator
    history: list[dict[str, float]]


def train_style_gan(
    images: ImageSet,
    settings: StyleFit,
    *,
    flips: bool,
    seed: int,
    device: torch.device,
    progress: Progress,
    label: str,
    distance: Distance | None = None,
    checkpoint: Path | None = None,
) -> TrainedStyleGan:
    r"""Train generator G and discriminator D in turn and return the running mean of G.

    .. math:: L_D = \log(1 + e^{-D(x)}) + \log(1 + e^{D(G(z))}) + \tfrac{\gamma}{2} \|\nabla_x D(x)\|^2, \qquad
              L_G = \log(1 + e^{-D(G(z))})

    The penalty is R1, on real images only, every few steps. Real images and fakes pass the same random
    augmentation, whose probability adapts to how sure D is of real images.

    Args:
        images: to learn from.
        settings: of networks and training.
        flips: whether mirror images belong to the same class.
        seed: of every random draw.
        device: where to compute; the networks stay there.
        progress: where steps are reported.
        label: of the training, there and in errors.
        distance: from 2,048 fakes, ``(n, c, h, w)`` on the CPU in [0, 1], to a distance, for the history.
        checkpoint: file to resume from if it exists, written about once a minute.

    Raises:
        TrainingError: when a loss is not finite, or there are fewer images than a batch.
        StoreError: when the checkpoint is damaged, of another training, or cannot be written.

    Source: T. Karras et al., CVPR 2020 and NeurIPS 2020 (see `StyleGenerator`, `augment_images`); R1: L. Mescheder, A.
    Geiger, S. Nowozin, "Which Training Methods for GANs do actually Converge?", ICML 2018. Differs: no path length
    regularization; the running mean starts short.
    """
    if len(images) < settings.batch_size:
        raise TrainingError(f"{label}: {len(images)} images are fewer than a batch of {settings.batch_size}.")
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(derive(purpose="style gan", seed=seed))
        training = StyleGanTrainer(
            images, settings, flips=flips, seed=seed, device=device, label=label, distance=distance
        )
        if checkpoint is not None and checkpoint.exists():
            training.load(checkpoint)
        saved = time.monotonic()
        with progress.task(label, settings.images) as advance:
            advance(training.shown)
            while training.shown < settings.images:
                training.step()
                advance(settings.batch_size)
                if checkpoint is not None and time.monotonic() - saved > SAVE_EVERY:
                    training.save(checkpoint)
                    saved = time.monotonic()
        return training.result()


class StyleGanTrainer:
    """State of a training: networks, running mean, optimizers, history."""

    def __init__(
        self,
        images: ImageSet,
        fit: StyleFit,
        *,
        flips: bool,
        seed: int,
        device: torch.device,
        label: str,
        distance: Distance | None,
    ) -> None:
        self.images, self.fit, self.flips, self.device, self.label, self.distance = (
            images, fit, flips, device, label, distance,
        )  # fmt: skip
        settings = {
            name: value for name, value in describe(fit).items() if name != "images"
        }  # a longer training may resume
        identity = [settings, flips, seed, images.fingerprint()]
        self.key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        shape = images.shape
        generator = StyleGenerator(shape, latent=fit.latent, width=fit.width, most=fit.most, depth=fit.depth)
        self.generator = generator.to(device)
        self.discriminator = StyleDiscriminator(shape, width=fit.width, most=fit.most).to(device)
        self.mean = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.nets = nn.ModuleDict({"generator": self.generator, "discriminator": self.discriminator, "mean": self.mean})
        self.of_generator = torch.optim.Adam(self.generator.parameters(), lr=fit.lr, betas=BETAS)
        self.of_discriminator = torch.optim.Adam(self.discriminator.parameters(), lr=fit.lr, betas=BETAS)
        self.augmentation = AugmentationProbability(device)
        self.steps, self.shown = 0, 0
        self.history: list[dict[str, float]] = []
        self.losses = torch.zeros(2, device=device)

    def step(self) -> None:
        """Train each network on one batch."""
        fit = self.fit
        self.generator.train()
        self.discriminator.train()
        index = torch.randint(len(self.images), (fit.batch_size,))
        real = self.augment(self.images.batch(index).to(self.device))
        penalized = fit.r1 > 0 and self.steps % fit.r1_every == 0
        self.train_discriminator(real, penalized)
        fakes = self.augment(self.make_fakes())
        generator_loss = F.softplus(-self.discriminator(fakes)).mean()
        self.of_generator.zero_grad(set_to_none=True)
        generator_loss.backward()
        self.of_generator.step()
        self.losses[1] = generator_loss.detach()
        self.steps += 1
        self.shown += fit.batch_size
        self._average()
        if self.shown // fit.judge_every > (self.shown - fit.batch_size) // fit.judge_every or self._finished:
            self._measure()

    @property
    def _finished(self) -> bool:
        return self.shown >= self.fit.images

    def train_discriminator(self, real: Tensor, penalized: bool) -> None:
        """Take one step of the discriminator, with the gradient penalty if ``penalized``."""
        with torch.no_grad():
            fakes = self.augment(self.make_fakes())
        real = real.requires_grad_(penalized)
        of_real, of_fakes = self.discriminator(real), self.discriminator(fakes)
        loss = F.softplus(-of_real).mean() + F.softplus(of_fakes).mean()
        self.losses[0] = loss.detach()
        if penalized:
            (gradient,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
            loss = loss + self.fit.r1 / 2 * self.fit.r1_every * gradient.square().sum((1, 2, 3)).mean()
        self.of_discriminator.zero_grad(set_to_none=True)
        loss.backward()
        self.of_discriminator.step()
        if self.fit.adaptive:
            self.augmentation.update(of_real.detach())

    def augment(self, images: Tensor) -> Tensor:
        """Return the discriminator's inputs; images are always mirrored where that keeps the class."""
        if self.flips:
            mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            images = torch.where(mirrored, images.flip(3), images)
        return augment_images(images, self.augmentation.probability, flips=self.flips) if self.fit.adaptive else images

    def make_fakes(self) -> Tensor:
        """Return a batch of images of random z, some of two w."""
        net, count = self.generator, self.fit.batch_size
        first, second = (net.mapping(torch.randn(count, net.latent, device=self.device)) for _ in range(2))
        with torch.no_grad():
            net.mean_w.lerp_(first.mean(0), MEAN_W)
        crossover = torch.randint(1, net.num_ws, (count, 1), device=self.device)
        mixed = torch.rand(count, 1, device=self.device) < MIXED
        late = (torch.arange(net.num_ws, device=self.device) >= crossover) & mixed
        w: Tensor = torch.where(late.unsqueeze(2), second.unsqueeze(1), first.unsqueeze(1))
        return net.synthesis(w)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(0.5 ** (self.fit.batch_size / self.fit.half_life), self.steps / (self.steps + 10))
        for mean, now in zip(self.mean.parameters(), self.generator.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
        self.mean.mean_w.copy_(self.generator.mean_w)

    @torch.no_grad()
    def _measure(self) -> None:
        if not torch.isfinite(self.losses).all():
            raise TrainingError(f"{self.label}: a loss is not finite after {self.shown} images.")
        measurement = {"images": float(self.shown), "augmentation": float(self.augmentation.probability)}
        if self.distance is not None:
            source = torch.Generator().manual_seed(derive(purpose="judge of a prior"))
            z = torch.randn(MEASURED, self.mean.latent, generator=source)
            fakes = torch.cat([self.mean(batch.to(self.device)).clamp(0, 1).cpu() for batch in z.split(256)])
            measurement["distance"] = self.distance(fakes)
        self.history.append(measurement)

    def save(self, path: Path) -> None:
        """Write the state that the next steps depend on."""
        meta: dict[str, Any] = {
            "key": self.key, "steps": self.steps, "shown": self.shown, "history": self.history,
        }  # fmt: skip
        beside = {"steered": {"probability": self.augmentation.probability}, "random": {"cpu": torch.get_rng_state()}}
        if self.device.type == "cuda":
            beside["random"]["cuda"] = torch.cuda.get_rng_state(self.device)
        save_checkpoint(path, self.nets, self._optimizers, {}, beside, meta)

    def load(self, path: Path) -> None:
        """Resume from a checkpoint."""
        _, beside, meta = load_checkpoint(path, self.nets, self._optimizers, ("steered", "random"))
        if meta["key"] != self.key:
            raise StoreError(
                f"{path}: the checkpoint of another training (other settings, images or seed). Remove it to start "
                "afresh."
            )
        self.augmentation.probability = beside["steered"]["probability"].to(self.device)
        torch.set_rng_state(beside["random"]["cpu"])
        if "cuda" in beside["random"] and self.device.type == "cuda":
            torch.cuda.set_rng_state(beside["random"]["cuda"], self.device)
        self.steps, self.shown, self.history = meta["steps"], meta["shown"], meta["history"]

    @property
    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"of_generator": self.of_generator, "of_discriminator": self.of_discriminator}

    def result(self) -> TrainedStyleGan:
        """Return the networks in evaluation mode."""
        if not math.isfinite(float(self.losses.sum())):
            raise TrainingError(f"{self.label}: a loss is not finite.")
        return TrainedStyleGan(
            generator=self.mean, discriminator=self.discriminator.eval().requires_grad_(False), history=self.history
        )
