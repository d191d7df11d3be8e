"""What every prior does, by the example of our own; each promise against a direct computation."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sparseguard.generators import (
    Prior,
    PriorCard,
    StyleFit,
    StylePrior,
    TrainedStyleGan,
    describe_style_prior,
    draw_samples,
    encode_grid,
)
from sparseguard.generators.stylegan.networks import StyleDiscriminator, StyleGenerator

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 48, 40), (3, 21, 17), (1, 128, 128)]


def made(shape: tuple[int, int, int] = (1, 12, 10)) -> StylePrior:
    fit = StyleFit(latent=6, width=2, most=2, depth=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StyleGenerator(shape, latent=6, width=2, most=2, depth=2)
        generator.mean_w.normal_()
        critic = StyleDiscriminator(shape, width=2, most=2)
    fitted = TrainedStyleGan(generator=generator, discriminator=critic, history=[])
    return StylePrior(describe_style_prior("toy", fitted, fit, shape), None, generator, critic)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Plain(Prior):
    """A generator of z alone, whose second layer puts out several values, one of them absent."""

    @classmethod
    def load(cls, folder: Path, card: PriorCard, trained_on: Tensor | None, tensors: Mapping[str, Tensor]) -> Self:
        raise NotImplementedError

    def mapping(self, z: Tensor, *, truncation: float = 1.0, cutoff: int | None = None) -> Tensor:
        return truncation * z

    def synthesis(self, w: Tensor) -> Tensor:
        grid, _ = self.generator[1](self.generator[0](w))
        out: Tensor = grid
        return out

    def layers(self) -> list[nn.Module]:
        return list(self.generator)  # type: ignore[arg-type]


class Several(nn.Module):
    def forward(self, grid: Tensor) -> tuple[Tensor, None]:
        return grid.sin().view(-1, 1, 2, 2), None


def plain() -> Plain:
    card = PriorCard(name="plain", kind="module", shape=(1, 2, 2), latent=(3,), num_ws=0, w_dim=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Plain(card, None, nn.Sequential(nn.Linear(3, 4), Several()))


def test_it_is_frozen_and_in_evaluation_mode() -> None:
    prior = made()
    assert not any(module.training for module in prior.generator.modules())
    assert not any(value.requires_grad for value in prior.generator.parameters())
    assert prior.to(torch.device("cpu")) is prior
    assert prior.has_w
    assert not plain().has_w


def test_latents_are_those_of_the_generator() -> None:
    prior = made()
    expected = torch.randn(5, 6, generator=random(3))
    assert torch.equal(prior.latents(5, random(3)), expected)
    many = prior.latents(20_000, random())
    assert float(many.mean()) == pytest.approx(0, abs=0.02)
    assert float(many.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_images_have_the_shape_on_the_card(shape: tuple[int, int, int]) -> None:
    prior = made(shape)
    w = prior.mapping(prior.latents(3, random()))
    assert w.shape == (3, prior.card.num_ws, prior.card.w_dim)
    images = prior.synthesis(w)
    assert images.shape == (3, *shape)
    logits = prior.realism(images)
    assert logits is not None
    assert logits.shape == (3,)


@pytest.mark.parametrize("cutoff", [None, 0, 1, 3])
@pytest.mark.parametrize("truncation", [0.0, 0.5, 1.0, -0.3])
def test_truncation_draws_the_first_layers_to_the_mean(truncation: float, cutoff: int | None) -> None:
    prior = made()
    z, count = prior.latents(4, random()), prior.card.num_ws
    w = prior.mapping(z, truncation=truncation, cutoff=cutoff)
    mean, free = prior._net.mean_w, prior._net.mapping(z)
    for layer in range(count):
        drawn = layer < (count if cutoff is None else cutoff)
        expected = mean + truncation * (free - mean) if drawn else free
        torch.testing.assert_close(w[:, layer], expected)
    if truncation == 0 and cutoff is None:
        assert (w == mean).all()


def test_no_image_or_logit_depends_on_its_batch() -> None:
    prior = made()
    z = prior.latents(7, random())
    images = prior.synthesis(prior.mapping(z, truncation=0.7))
    logits = prior.realism(images)
    assert logits is not None
    for place in (0, 6):
        alone = prior.synthesis(prior.mapping(z[place : place + 1], truncation=0.7))
        torch.testing.assert_close(alone, images[place : place + 1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(prior.realism(alone), logits[place : place + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [made, plain])
def test_features_finished_are_the_images(make: Any) -> None:
    prior: Prior = make()
    w = prior.mapping(prior.latents(3, random()))
    images = prior.synthesis(w)
    assert len(prior.layers()) > 0
    for layer in range(len(prior.layers())):
        features = prior.features(w, layer)
        assert torch.equal(prior.finish(features, w, layer), images)
    assert torch.equal(prior.synthesis(w), images)  # nothing stays hooked


def test_the_features_are_the_blocks_outputs() -> None:
    prior = made()
    w = prior.mapping(prior.latents(2, random()))
    grid, picture = prior._net.start.expand(2, -1, -1, -1), None
    for layer, block in enumerate(prior.layers()):
        grid, picture = block(grid, picture, w[:, 2 * layer], w[:, 2 * layer + 1])
        features = prior.features(w, layer)
        assert len(features) == 2
        assert torch.equal(features[0], grid)
        assert torch.equal(features[1], picture)


def test_replaced_features_decide_what_comes_after_them() -> None:
    prior = made()
    first, second = (prior.mapping(prior.latents(2, random(seed))) for seed in (1, 2))
    last = len(prior.layers()) - 1
    for layer in range(last):
        mixed = torch.cat([first[:, : 2 * layer + 2], second[:, 2 * layer + 2 :]], 1)
        torch.testing.assert_close(prior.finish(prior.features(first, layer), second, layer), prior.synthesis(mixed))
    everything = prior.finish(prior.features(first, last), second, last)
    torch.testing.assert_close(everything, prior.synthesis(first))


def test_features_and_latents_have_gradients_of_finite_differences() -> None:
    prior = made((1, 8, 8))
    prior.generator.double()
    w = prior.mapping(prior.latents(1, random()).double())
    features = tuple(part.clone().requires_grad_() for part in prior.features(w, 1) if part is not None)
    assert torch.autograd.gradcheck(lambda *parts: prior.finish(parts, w, 1).sum(1), features, fast_mode=True)
    assert torch.autograd.gradcheck(prior.synthesis, (w.clone().requires_grad_(),), fast_mode=True)


def test_hooks_are_removed_after_an_error() -> None:
    prior = made()
    w = prior.mapping(prior.latents(1, random()))
    images = prior.synthesis(w)
    with pytest.raises(Exception, match=r".+"):
        prior.finish((torch.zeros(1, 99, 1, 1), torch.zeros(1, 1, 1, 1)), w, 0)
    assert torch.equal(prior.synthesis(w), images)


def test_a_prior_without_a_discriminator_has_no_opinion() -> None:
    assert plain().realism(torch.zeros(1, 1, 2, 2)) is None


def test_samples_are_images_of_truncated_latents() -> None:
    prior = made()
    few, many = draw_samples(prior, 3, truncation=0.5, seed=4), draw_samples(prior, 40, truncation=0.5, seed=4)
    torch.testing.assert_close(many[:3], few)
    assert 0 <= float(many.min()) <= float(many.max()) <= 1
    assert not torch.allclose(draw_samples(prior, 3, truncation=0.5, seed=5), few)
    mean = prior.synthesis(prior._net.mean_w.expand(1, prior.card.num_ws, -1)).clamp(0, 1)
    torch.testing.assert_close(draw_samples(prior, 2, truncation=0.0), mean.expand(2, -1, -1, -1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (64, 8, 8)])
def test_the_grid_holds_every_image_enlarged(channels: int, count: int, columns: int, rows: int) -> None:
    images = torch.rand(count, channels, 20, 42, generator=random())
    picture = np.asarray(Image.open(BytesIO(encode_grid(images))))
    assert picture.shape[:2] == (rows * 42 + 2, columns * 86 + 2)  # enlarged twice: 84 wide, 40 high, gaps of 2
    for number, image in enumerate(images):
        top, left = 2 + number // columns * 42, 2 + number % columns * 86
        tile = picture[top : top + 40 : 2, left : left + 84 : 2].reshape(20, 42, channels)
        expected = np.rint(image.permute(1, 2, 0).numpy() * 255)
        assert np.array_equal(tile, expected)
    assert (picture[:2] == 255).all()
