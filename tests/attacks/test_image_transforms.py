import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as theirs

from sparseguard.attacks._image_transforms import Crop, clip_straight_through, draw_crop, fit_to_shape, resize


def images(count=3, channels=1, height=28, width=28):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 28, 28), (3, 5, 20, 17), (10, 2, 9, 26)])
def test_a_crop_is_torchvisions(box, mirrored):
    batch = images()
    expected = theirs.resized_crop(batch, *box, [28, 28], antialias=True)
    expected = theirs.horizontal_flip(expected) if mirrored else expected
    torch.testing.assert_close(Crop(*box, mirrored).apply(batch), expected, atol=1e-6, rtol=0)


@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(8, 64), st.integers(8, 64)),
    low=st.floats(0.05, 1),
    share=st.floats(0, 1),
    ratio=st.sampled_from([(1.0, 1.0), (0.8, 1.2), (0.5, 2.0)]),
)
def test_a_random_crop_lies_inside_and_keeps_to_its_ranges(seed, size, low, share, ratio):
    high = low + share * (1 - low)
    crop = draw_crop(size, (low, high), ratio, True, torch.Generator().manual_seed(seed))
    assert 0 <= crop.top <= size[0] - crop.height
    assert 0 <= crop.left <= size[1] - crop.width
    # what is taken after ten tries in vain
    widest = (min(size[0], round(size[1] / ratio[0])), min(size[1], round(size[0] * ratio[1])))
    rounding = (crop.height + crop.width + 1) / 2  # of both sides by up to half a pixel
    assert (crop.height, crop.width) == widest or low * math.prod(
        size
    ) - rounding <= crop.height * crop.width <= high * math.prod(size) + rounding


def test_where_no_fraction_fits_the_crop_is_central_and_of_an_allowed_aspect():
    crop = draw_crop((64, 48), (0.9, 1.0), (1.0, 1.0), False, torch.Generator().manual_seed(0))
    assert (crop.top, crop.left, crop.height, crop.width) == (8, 0, 48, 48)


def test_random_crops_spread_over_their_range():
    source = torch.Generator().manual_seed(0)
    crops = [draw_crop((100, 100), (0.5, 0.9), (0.8, 1.2), True, source) for _ in range(400)]
    shares = torch.tensor([crop.height * crop.width / 10_000 for crop in crops])
    assert float(shares.mean()) == pytest.approx(0.7, abs=0.03)  # uniform
    assert 0.4 < sum(crop.mirrored for crop in crops) / 400 < 0.6
    assert not any(draw_crop((9, 9), (0.5, 1.0), (1.0, 1.0), False, source).mirrored for _ in range(50))


@pytest.mark.parametrize("scale", [(0.9, 0.5), (0.0, 1.0)])
def test_a_range_the_wrong_way_round_is_refused(scale):
    with pytest.raises(ValueError, match="low <= high"):
        draw_crop((8, 8), scale, (1.0, 1.0), False, torch.Generator())


def test_color_becomes_gray_as_in_torchvision_and_gray_is_repeated():
    colour = images(channels=3)
    torch.testing.assert_close(fit_to_shape(colour, (1, 28, 28), 0), theirs.rgb_to_grayscale(colour), atol=2e-3, rtol=0)
    grey = images()
    assert (fit_to_shape(grey, (3, 28, 28), 0) == grey).all()


def test_the_center_is_cropped_and_resized():
    batch = images(height=40, width=40)
    expected = theirs.resize(theirs.center_crop(batch, [20, 20]), [28, 28], antialias=True)
    torch.testing.assert_close(fit_to_shape(batch, (1, 28, 28), 20), expected, atol=1e-6, rtol=0)


def test_an_image_of_the_right_size_is_unchanged():
    batch = images()
    assert resize(batch, (28, 28)) is batch


def test_clipping_lets_gradients_pass():
    values = torch.tensor([[[[-0.5, 0.5, 1.5]]]], requires_grad=True)
    out = clip_straight_through(values)
    out.sum().backward()
    assert out.flatten().tolist() == [0.0, 0.5, 1.0]
    assert values.grad.flatten().tolist() == [1.0, 1.0, 1.0]
