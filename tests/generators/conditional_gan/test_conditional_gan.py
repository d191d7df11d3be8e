"""The conditional GAN: shapes, its losses against another formula, what it learns."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseguard.core.errors import TrainingError
from sparseguard.core.progress import Silent
from sparseguard.data import DATASETS
from sparseguard.generators import ConditionalGenerator, Discriminator, GanFit, train_conditional_gan
from sparseguard.generators.conditional_gan.training import GanTrainer
from sparseguard.types import ImageSet

CPU = torch.device("cpu")


def bars(count: int = 120, present: tuple[int, ...] = (0, 1, 2)) -> ImageSet:
    """Noisy 8 x 8 images with a bright bar at the top, in the middle or at the bottom."""
    random = torch.Generator().manual_seed(0)
    labels = torch.tensor(present)[torch.arange(count) % len(present)]
    pixels = 0.2 * torch.rand(count, 1, 8, 8, generator=random)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        image[:, 3 * label : 3 * label + 2] += 0.7
    return ImageSet(pixels=pixels, labels=labels, classes=("top", "middle", "bottom"))


def trained(images: ImageSet, seed: int = 0, **options: Any) -> ConditionalGenerator:
    fit = GanFit(**{"width": 4, "latent": 8, **options})
    return train_conditional_gan(images, fit, seed=seed, device=CPU, progress=Silent(), label="toy")


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 8, 8), (1, 9, 13), (3, 5, 30), (1, 1, 1)])
def test_images_of_any_size(shape: tuple[int, int, int]) -> None:
    generator = ConditionalGenerator(shape, 5, latent=6, width=4)
    labels = torch.arange(4)
    images = generator(torch.randn(4, 6), labels)
    assert images.shape == (4, *shape)
    assert 0 <= float(images.detach().min()) <= float(images.detach().max()) <= 1
    assert Discriminator(shape, 5, width=4)(images, labels).shape == (4,)


def test_a_step_takes_the_losses_of_the_formula_and_moves_every_weight() -> None:
    torch.manual_seed(0)
    images = bars(6)
    pair = GanTrainer(
        ConditionalGenerator((1, 8, 8), 3, latent=5, width=4), Discriminator((1, 8, 8), 3, width=4), lr=1e-3
    )
    generator, discriminator = copy.deepcopy(pair.generator), copy.deepcopy(pair.discriminator)
    wanted = torch.arange(6) % 3
    torch.manual_seed(1)
    losses = pair.step(images.images, images.labels, wanted)
    torch.manual_seed(1)
    fakes = generator(torch.randn(6, 5), wanted)
    binary = F.binary_cross_entropy_with_logits
    of_real, of_fakes = discriminator(images.images, images.labels), discriminator(fakes, wanted)
    expected = binary(of_real, torch.ones(6)) + binary(of_fakes, torch.zeros(6))
    torch.testing.assert_close(losses[0], expected.detach())
    of_fakes = pair.discriminator(fakes, wanted)  # the generator meets the discriminator after its step
    torch.testing.assert_close(losses[1], binary(of_fakes, torch.ones(6)).detach())
    for before, after in ((generator, pair.generator), (discriminator, pair.discriminator)):
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
            shifted = name.endswith("bias") and name.startswith(("spread.0", "doublings.0.0"))
            assert shifted or not torch.equal(old, new), name  # a bias before a normalization has no gradient


def test_wanted_classes_are_learned() -> None:
    images = bars()
    generator = trained(images, epochs=50, lr=3e-3)
    labels = torch.arange(90) % 3
    fakes = generator.sample(labels, random())
    means = torch.stack([images.images[images.labels == label].mean(0).flatten() for label in range(3)])
    nearest = torch.cdist(fakes.flatten(1), means).argmin(1)
    assert float((nearest == labels).float().mean()) > 0.9
    assert float(fakes[labels == 0].std(0).mean()) > 0.005  # the noise matters


@pytest.mark.parametrize(("count", "present"), [(1, (1,)), (7, (2,)), (24, (0, 1, 2))])
def test_tiny_sets(count: int, present: tuple[int, ...]) -> None:
    generator = trained(bars(count, present), epochs=2)
    fakes = generator.sample(torch.tensor(present), random())
    assert torch.isfinite(fakes).all()
    assert not generator.training


def test_everything_follows_from_the_seeds() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (trained(bars(24), seed, epochs=1) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    labels = torch.tensor([0, 1, 2, 0])
    fakes = one.sample(labels, random(3))
    assert torch.equal(fakes, same.sample(labels, random(3)))
    assert not torch.equal(fakes, one.sample(labels, random(4)))
    assert not torch.equal(fakes, other.sample(labels, random(3)))
    noise = one.noise(4, random(3))
    torch.testing.assert_close(one(noise[2:3], labels[2:3]), fakes[2:3])  # whatever it is drawn with


def test_statistics_are_those_of_the_released_weights() -> None:
    generator = trained(bars(24), epochs=3)
    labels = torch.arange(3000) % 3
    fakes = generator(generator.noise(3000, random()), labels)
    renewed = copy.deepcopy(generator).train()
    assert float((renewed(renewed.noise(3000, random()), labels) - fakes).abs().mean()) < 0.01
    assert all(module.momentum is None for module in generator.modules() if isinstance(module, nn.BatchNorm2d))


def test_what_cannot_be_learned_is_a_failure() -> None:
    with pytest.raises(TrainingError, match="toy: a generator needs images"):
        trained(bars(0))
    with pytest.raises(TrainingError, match="not finite in epoch"):
        trained(bars(24), lr=1e30)


@pytest.mark.slow
def test_classes_of_fashion_are_recognized() -> None:
    splits = DATASETS["fashion-mini"](private=2000).load()
    private = splits.private.select(torch.arange(1800))
    generator = train_conditional_gan(private, GanFit(), seed=1, device=CPU, progress=Silent(), label="fashion")
    torch.manual_seed(0)
    judge = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-3)
    for _ in range(15):
        for index in torch.randperm(len(splits.auxiliary)).split(64):
            optimizer.zero_grad()
            images, labels = splits.auxiliary.batch(index), splits.auxiliary.labels[index]
            F.cross_entropy(judge(images), labels).backward()
            optimizer.step()
    labels = torch.arange(1000) % 10
    with torch.no_grad():
        recognized = (judge(generator.sample(labels, random())).argmax(1) == labels).float()
    assert float(recognized.mean()) > 0.7
    assert all(float(recognized[labels == label].mean()) > 0.3 for label in range(10))
