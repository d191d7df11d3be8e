"""The style-based networks against slow, obvious versions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseguard.generators.stylegan.networks import (
    SMALLEST,
    EqualConv,
    EqualLinear,
    ModulatedConv,
    StyleDiscriminator,
    StyleGenerator,
    channel_widths,
    grid_sizes,
    halve,
    scaled_leaky_relu,
)

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 48, 40), (3, 128, 128), (3, 29, 31), (1, 8, 8), (1, 5, 64), (3, 9, 2)]


def generator(shape: tuple[int, int, int], **options: int) -> StyleGenerator:
    torch.manual_seed(0)
    return StyleGenerator(shape, **{"latent": 6, "width": 2, "most": 2, "depth": 2, **options})


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("size", [1, 3])
def test_modulation_scales_the_weights_of_each_image(size: int, demodulate: bool) -> None:
    torch.manual_seed(0)
    layer = ModulatedConv(3, 5, size, 4, demodulate=demodulate).double()
    with torch.no_grad():
        layer.bias.normal_()
    grid, w = torch.randn(2, 3, 6, 7, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    scale = w @ layer.style.weight.T / math.sqrt(4) + layer.style.bias
    weights = layer.weight[None] / math.sqrt(3 * size**2) * scale[:, None, :, None, None]  # (n, o, i, k, k)
    if demodulate:
        weights = weights / (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    expected = F.conv2d(grid.reshape(1, 6, 6, 7), weights.reshape(10, 3, size, size), padding=size // 2, groups=2)
    expected = expected.view(2, 5, 6, 7) + layer.bias[None, :, None, None]
    torch.testing.assert_close(layer(grid, w), expected)


def test_equalized_layers_start_at_unit_variance() -> None:
    torch.manual_seed(0)
    values = torch.randn(4000, 64)
    for rate in (1.0, 0.01):
        assert float(EqualLinear(64, 64, rate=rate)(values).detach().std()) == pytest.approx(1, abs=0.05)
    grid = torch.randn(40, 16, 12, 12)
    inner = EqualConv(16, 16, 3)(grid).detach()[:, :, 1:-1, 1:-1]  # without the zeros beyond the border
    assert float(inner.std()) == pytest.approx(1, abs=0.05)


def test_a_rate_is_a_rate() -> None:
    """A layer at rate r moves its function by r^2 of what another moves by, at the same weights and step of descent."""
    torch.manual_seed(0)
    full, slow = EqualLinear(5, 3).double(), EqualLinear(5, 3, rate=0.1).double()
    with torch.no_grad():
        slow.weight.copy_(full.weight / 0.1)
    values = torch.randn(7, 5, dtype=torch.float64)
    torch.testing.assert_close(slow(values), full(values))
    for layer in (full, slow):
        layer(values).square().sum().backward()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter -= 1e-3 * parameter.grad
    start = F.linear(values, (full.weight + 1e-3 * full.weight.grad) / math.sqrt(5))
    torch.testing.assert_close(slow(values) - start, 0.1**2 * (full(values) - start))


def test_activation_keeps_the_second_moment() -> None:
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # half of the values are kept and half times 0.2, then all times the square root of 2
    assert float(scaled_leaky_relu(values).square().mean()) == pytest.approx(1 + 0.2**2, rel=0.02)


@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_each_grid_is_half_the_next(height: int, width: int) -> None:
    sizes = grid_sizes((1, height, width))
    assert sizes[-1] == (height, width)
    assert max(sizes[0]) <= SMALLEST
    for small, large in pairwise(sizes):
        assert small == ((large[0] + 1) // 2, (large[1] + 1) // 2)
    assert all(max(size) > SMALLEST for size in sizes[2:])


@given(width=st.integers(1, 64), count=st.integers(1, 8), most=st.integers(1, 64))
def test_widths_double_up_to_the_most(width: int, count: int, most: int) -> None:
    found = channel_widths(width, count, most)
    assert found[0] == width
    assert all(after == min(2 * before, most * width) for before, after in pairwise(found))


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_halving_averages_what_is_there(height: int, width: int) -> None:
    grid = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows, columns = (height + 1) // 2, (width + 1) // 2
    expected = torch.stack(
        [grid[0, 0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for y in range(rows) for x in range(columns)]
    )
    torch.testing.assert_close(halve(grid), expected.view(1, 1, rows, columns))


@pytest.mark.parametrize("shape", SHAPES)
def test_images_of_any_size(shape: tuple[int, int, int]) -> None:
    net = generator(shape)
    images = net(torch.randn(3, 6))
    assert images.shape == (3, *shape)
    assert torch.isfinite(images).all()
    assert net.num_ws == 2 * len(grid_sizes(shape))
    critic = StyleDiscriminator(shape, width=2, most=2)
    logits = critic(images)
    assert logits.shape == (3,)
    logits.sum().backward()
    unused = [name for name, value in (*net.named_parameters(), *critic.named_parameters()) if value.grad is None]
    assert not unused


def test_an_image_is_a_function_of_its_own_w() -> None:
    net = generator((3, 20, 17)).double()
    w = torch.randn(5, net.num_ws, 6, dtype=torch.float64)
    together = net.synthesis(w)
    torch.testing.assert_close(torch.cat([net.synthesis(one[None]) for one in w]), together)
    torch.testing.assert_close(net.synthesis(w), together)  # and there is no noise


def test_every_w_matters_to_its_grid_and_finer_ones() -> None:
    net = generator((1, 16, 16)).double()
    w = torch.randn(1, net.num_ws, 6, dtype=torch.float64, requires_grad=True)
    (moved,) = torch.autograd.grad(net.synthesis(w).square().sum(), w)
    assert (moved.abs().sum(2) > 0).all()


def test_the_length_of_z_does_not_matter() -> None:
    net = generator((1, 8, 8)).double()
    z = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(net.mapping(z), net.mapping(3 * z), rtol=1e-6, atol=1e-8)


def test_a_trained_discriminator_sees_each_image_alone() -> None:
    torch.manual_seed(0)
    critic = StyleDiscriminator((1, 12, 10), width=2, most=2).double()
    images = torch.rand(6, 1, 12, 10, dtype=torch.float64)
    first = critic(images)  # in training it sees how much they differ
    assert not torch.allclose(critic(images[:1]), first[:1])
    critic.eval()
    before = critic.usual_deviation.clone()
    together = critic(images)
    torch.testing.assert_close(torch.cat([critic(image[None]) for image in images]), together)
    assert torch.equal(critic.usual_deviation, before)


def test_the_usual_deviation_follows_training() -> None:
    torch.manual_seed(0)
    critic = StyleDiscriminator((1, 8, 8), width=2, most=2).double()
    images = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    for _ in range(1500):
        with torch.no_grad():
            seen = critic(images)
    critic.eval()
    torch.testing.assert_close(critic(images), seen, rtol=1e-4, atol=1e-4)
