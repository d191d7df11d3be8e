"""Each way of augmentation by itself, forced, against another way to compute it; and how its probability is steered."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseguard.generators.stylegan import augmentation
from sparseguard.generators.stylegan.augmentation import (
    BRIGHTNESS,
    CONTRAST,
    IMAGES_TO_FULL,
    MOST,
    SHIFT,
    TARGET,
    TURN,
    ZOOM,
    AugmentationProbability,
    augment_images,
    cutout_mask,
)

ALWAYS, NEVER = torch.ones(()), torch.zeros(())
WAYS = ("shift", "zoom", "turn", "contrast", "brightness")  # in the order they are drawn

Force = Callable[..., None]


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Force:
    """Give the normal draws by way, 0 where not said, and switch the windows off."""

    def forced(**wanted: float | tuple[float, float]) -> None:
        assert set(wanted) <= set(WAYS)
        values = iter([wanted.get(way, 0.0) for way in WAYS])

        def randn(count: int, ways: int, device: torch.device) -> Tensor:
            return torch.tensor(next(values), dtype=torch.float32).expand(count, ways).clone()

        monkeypatch.setattr(torch, "randn", randn)
        monkeypatch.setattr(augmentation, "cutout_mask", lambda *given: torch.ones_like(given[-1][:, :1]))

    return forced


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (2, 3, 9, 14)])
def test_without_probability_nothing_changes(shape: tuple[int, ...], flips: bool) -> None:
    given_images = images(*shape).requires_grad_()
    out = augment_images(given_images, NEVER, flips=flips)
    torch.testing.assert_close(out, given_images, rtol=0, atol=1e-5)
    (gradient,) = torch.autograd.grad(out.sum(), given_images)
    torch.testing.assert_close(gradient, torch.ones_like(gradient), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -2), (-4, 5)])
def test_a_shift_by_whole_pixels(right: int, down: int, force: Force) -> None:
    force(shift=(2 * right / 12 / (2 * SHIFT), 2 * down / 10 / (2 * SHIFT)))
    given_images = images(2, 3, 10, 12)
    out = augment_images(given_images, ALWAYS, flips=False)
    padded = np.pad(given_images.numpy(), ((0, 0), (0, 0), (6, 6), (6, 6)), mode="symmetric")
    expected = torch.from_numpy(padded[:, :, 6 + down : 16 + down, 6 + right : 18 + right])
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


def test_a_quarter_turn(force: Force) -> None:
    force(turn=math.pi / 2 / TURN)
    given_images = images(2, 1, 11, 11)
    out = augment_images(given_images, ALWAYS, flips=False)
    turned = [torch.rot90(given_images, quarters, (2, 3)) for quarters in (1, 3)]
    assert any(torch.allclose(out, one, atol=1e-5) for one in turned)


def test_a_size_of_a_third(force: Force) -> None:
    force(zoom=math.log(3) / ZOOM)
    given_images = images(2, 1, 9, 9)
    out = augment_images(given_images, ALWAYS, flips=False)
    # the middle third shows every third pixel of the whole
    torch.testing.assert_close(out[:, :, 3:6, 3:6], given_images[:, :, 1::3, 1::3], rtol=0, atol=1e-5)


def test_contrast_and_brightness(force: Force) -> None:
    force(contrast=0.7, brightness=-0.4)
    given_images = images(3, 3, 8, 8)
    out = augment_images(given_images, ALWAYS, flips=False)
    for one, made in zip(given_images, out, strict=True):
        expected = (one - one.mean()) * math.exp(CONTRAST * 0.7) + one.mean() - BRIGHTNESS * 0.4
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("flips", [False, True])
def test_mirrors_only_where_allowed(flips: bool, force: Force) -> None:
    force()
    torch.manual_seed(0)
    given_images = images(1, 1, 6, 6).expand(400, -1, -1, -1)
    out = augment_images(given_images, ALWAYS, flips=flips)
    kept = (out - given_images).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (out - given_images.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (kept ^ mirrored).all()
    assert float(mirrored.float().mean()) == pytest.approx(0.5 if flips else 0, abs=0.1 if flips else 0)


def test_a_window_is_a_square_of_half_the_side() -> None:
    torch.manual_seed(0)
    chosen = (torch.arange(200) % 2).float().unsqueeze(1)
    masks = cutout_mask(200, 20, 32, chosen, images(200, 3, 20, 32))
    assert masks.shape == (200, 1, 20, 32)
    assert (masks[::2] == 1).all()
    inside = 0
    for mask in masks[1::2, 0]:
        rows, columns = (mask == 0).any(1).nonzero().flatten(), (mask == 0).any(0).nonzero().flatten()
        top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
        assert (mask[top : bottom + 1, left : right + 1] == 0).all()  # whole
        assert int((mask == 0).sum()) == (bottom + 1 - top) * (right + 1 - left)  # and nothing else
        if top > 0 and bottom < 19 and left > 0 and right < 31:
            inside += 1
            assert abs(bottom + 1 - top - 10) <= 1
            assert abs(right + 1 - left - 16) <= 1
    assert inside > 10


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 4), channels=st.sampled_from([1, 3]), height=st.integers(2, 12), width=st.integers(2, 12),
    probability=st.floats(0, 1), seed=st.integers(0, 99),
)  # fmt: skip
def test_images_keep_their_shape(
    count: int, channels: int, height: int, width: int, probability: float, seed: int
) -> None:
    given_images = images(count, channels, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        out = augment_images(given_images, torch.tensor(probability), flips=True)
    assert out.shape == given_images.shape
    assert torch.isfinite(out).all()


def test_the_share_changed_is_the_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of brightness alone, which an image keeps no trace of when it is not chosen."""
    monkeypatch.setattr(augmentation, "cutout_mask", lambda *given: torch.ones_like(given[-1][:, :1]))
    for way in ("SHIFT", "ZOOM", "TURN", "CONTRAST"):
        monkeypatch.setattr(augmentation, way, 0.0)
    torch.manual_seed(0)
    grey = torch.full((4000, 1, 2, 2), 0.5)
    changed = (augment_images(grey, torch.tensor(0.3), flips=True) - grey).abs().amax((1, 2, 3)) > 1e-4
    assert float(changed.float().mean()) == pytest.approx(0.3, abs=0.03)


def test_the_probability_rises_while_real_images_are_surely_recognized() -> None:
    steered = AugmentationProbability(torch.device("cpu"))
    sure = torch.tensor([1.0, 2.0, 0.1, 5.0])
    steered.update(sure)
    assert float(steered.probability) == pytest.approx(4 / IMAGES_TO_FULL)
    for _ in range(9):
        steered.update(sure)
    assert float(steered.probability) == pytest.approx(40 / IMAGES_TO_FULL, rel=1e-4)
    steered.update(-sure)
    assert float(steered.probability) == pytest.approx(36 / IMAGES_TO_FULL, rel=1e-4)


@given(wrong=st.integers(0, 20))
def test_the_target_is_the_mean_sign(wrong: int) -> None:
    steered = AugmentationProbability(torch.device("cpu"))
    steered.probability += 0.4
    logits = torch.ones(20)
    logits[:wrong] = -1
    steered.update(logits)
    mean = (20 - 2 * wrong) / 20
    moved = float(steered.probability) - 0.4
    if abs(mean - TARGET) > 1e-6:  # at the target itself rounding decides
        assert math.copysign(1, moved) == math.copysign(1, mean - TARGET)


@pytest.mark.parametrize(("logit", "end"), [(1.0, MOST), (-1.0, 0.0)])
def test_the_probability_stays_in_its_bounds(logit: float, end: float) -> None:
    steered = AugmentationProbability(torch.device("cpu"))
    steered.probability += 0.5
    for _ in range(100):
        steered.update(torch.full((1000,), logit))
        assert 0 <= float(steered.probability) <= MOST + 1e-6
    assert float(steered.probability) == pytest.approx(end)
