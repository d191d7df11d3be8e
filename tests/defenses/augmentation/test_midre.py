from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparseguard.core.staged_model import Blueprint
from sparseguard.defenses.augmentation.midre import Midre, erase_squares, mean_color
from sparseguard.defenses.base import Budget, Context
from sparseguard.types import ImageSet

OUTSIDE = 7.0
"""A fill that no pixel has."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(n: int, c: int, h: int, w: int, low: float, high: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images, what became of them, and where they were erased."""
    images = torch.rand(n, c, h, w, generator=seeded(1))
    made = erase_squares(images, low=low, high=high, fill=torch.full((c,), OUTSIDE), generator=seeded(seed))
    return images, made, (made == OUTSIDE).all(1)


@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    colours=st.sampled_from([1, 3]),
    seed=st.integers(0, 100),
)
def test_a_square_of_every_image_is_erased_and_nothing_else(
    size: tuple[int, int], shares: tuple[float, float], colours: int, seed: int
) -> None:
    h, w = size
    low, high = sorted(shares)
    images, made, where = boxes(9, colours, h, w, low, high, seed)
    assert torch.equal(torch.where(where[:, None], images, made), images)
    for box in where:
        rows, columns = box.any(1).nonzero().flatten(), box.any(0).nonzero().flatten()
        side = len(rows)
        assert len(columns) == side
        assert int(box.sum()) == side**2
        if side:
            assert int(rows[-1] - rows[0]) + 1 == side == int(columns[-1] - columns[0]) + 1
        least, most = (min(math.sqrt(share * h * w), h, w) for share in (low, high))
        assert least - 0.5001 <= side <= most + 0.5001


def test_areas_and_places_are_uniform() -> None:
    n, size, low, high = 20000, 40, 0.1, 0.4
    where = boxes(n, 1, size, size, low, high)[2]
    shares = where.flatten(1).double().mean(1)
    assert float(shares.mean()) == pytest.approx((low + high) / 2, abs=0.005)
    assert float(shares.var()) == pytest.approx((high - low) ** 2 / 12, rel=0.05)
    area, down, right = torch.rand(3, n, generator=seeded(0))
    assert float(torch.stack([area, down, right]).corrcoef().triu(1).abs().max()) < 0.03
    fixed = boxes(n, 1, 6, 8, 0.083334, 0.083334)[2]  # squares of 2 x 2 pixels
    tops, lefts = fixed.any(2).int().argmax(1), fixed.any(1).int().argmax(1)
    counts = torch.bincount(tops * 7 + lefts, minlength=35).double()
    assert len(counts) == 35
    chi_squared = float(((counts - n / 35) ** 2 / (n / 35)).sum())
    assert chi_squared < 65.2  # the 99.9 % point for 34 degrees of freedom


def test_it_follows_from_the_generator_and_leaves_the_given_images_alone() -> None:
    images = torch.rand(6, 3, 8, 8, generator=seeded(2))
    before, version = images.clone(), images._version
    labels = torch.arange(6)
    component = Midre(fill=0.25)
    made = [component.transform(images, labels, state={}, epoch=0, generator=seeded(seed))[0] for seed in (3, 3, 4)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert torch.equal(images, before)
    assert images._version == version
    assert component.transform(images[:0], labels[:0], state={}, epoch=0, generator=seeded(0))[0].shape == (0, 3, 8, 8)
    changed = made[0] != images
    assert set(made[0][changed].tolist()) == {0.25}


def test_it_fills_with_the_private_images_mean_color() -> None:
    pixels = torch.randint(256, (5000, 3, 4, 4), generator=seeded(5)).to(torch.uint8)
    private = ImageSet(pixels=pixels, labels=torch.zeros(5000, dtype=torch.int64), classes=("a",))
    other = ImageSet(pixels=pixels[:9] // 2, labels=private.labels[:9], classes=("a",))
    context = Context(
        private=private,
        auxiliary=other,
        blueprint=Blueprint(stages=(), taps={}),
        seed=0,
        budget=Budget(images=4500, batch_size=9, epochs=1),
    )
    state = Midre().prepare(context)
    torch.testing.assert_close(mean_color(private).double(), (pixels.double() / 255).mean((0, 2, 3)), rtol=0, atol=1e-6)
    whole = Midre(low=1.0, high=1.0).transform(
        private.images[:2], private.labels[:2], state=state, epoch=0, generator=seeded(0)
    )[0]
    torch.testing.assert_close(whole, mean_color(private).view(1, 3, 1, 1).expand(2, 3, 4, 4))
    assert Midre(fill=0.5).prepare(context) == {}


def test_only_a_number_as_fill_learns_nothing_beside_gradients() -> None:
    assert Midre(fill=0.5).find_unaccounted_access() is None
    assert "set fill to a number" in (Midre().find_unaccounted_access() or "")


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="high must not be below low"):
        Midre(low=0.5, high=0.4)
    with pytest.raises(ValueError, match="fill"):
        Midre(fill="median")  # type: ignore[arg-type]
