"""`sg.reconstruct`: one attack on one tap in one call."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import sparseguard as sg
from sparseguard.core.errors import DataError, RecipeError
from sparseguard.targets import state_hash

SIDE = 6


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 80, bias=False))
        self.head = nn.Linear(80, 3)

    def forward(self, images):
        return self.head(self.front(images).relu())


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net()


def pixels(count, seed=0):
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def mean_psnr(preds, target):
    return (-10 * (preds - target).square().flatten(1).mean(1).log10()).clamp(max=100)


def test_a_tap_with_more_linear_features_than_pixels_gives_the_images_back(model):
    images, auxiliary = pixels(12, 1), pixels(400, 2)
    result = sg.reconstruct(model, images, auxiliary=auxiliary, tap="front", copies=1)
    assert result.images.shape == images.shape
    assert result.psnr.min() > 30
    torch.testing.assert_close(result.psnr, mean_psnr(result.images, images), atol=1e-3, rtol=1e-4)
    assert result.ssim.min() > 0.99
    assert result.knowledge == "black-box"
    few = sg.reconstruct(model, images, auxiliary=auxiliary, tap="logits", copies=1)
    assert few.psnr.mean() < 15  # three numbers of 36
    assert "12 images, black-box: PSNR" in str(result)


def test_a_floor_returns_the_mean_of_the_images_it_learns_from(model):
    auxiliary = pixels(400, 2)
    result = sg.reconstruct(model, pixels(3), auxiliary=auxiliary, tap="front", attack="mean-image")
    assert torch.equal(result.images[0], result.images[2])
    torch.testing.assert_close(result.images[0], auxiliary.mean(0), atol=0.1, rtol=0)
    assert result.knowledge == "nothing"


def test_a_white_box_search_finds_the_image(model):
    settings = {"attack": "gradient-inversion", "steps": 300, "prior_weight": (0.0,), "tv": (0.0,)}
    result = sg.reconstruct(model, pixels(2, 1), auxiliary=pixels(200, 2), tap="front", **settings)
    assert result.psnr.min() > 25
    assert result.knowledge == "white-box"


def test_the_same_seed_gives_the_same_result_and_the_model_stays(model):
    model.train()
    before = state_hash(model)
    settings = {"auxiliary": pixels(60, 2), "tap": "front", "attack": "ridge-conv", "epochs": 1}
    first, second = (sg.reconstruct(model, pixels(4), **settings) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert state_hash(model) == before
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_the_result_is_frozen(model):
    result = sg.reconstruct(model, pixels(2), auxiliary=pixels(60, 2), tap="front", attack="mean-image")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.psnr = 1.0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tap": "frontt"}, RecipeError, "no module 'frontt'. Did you mean 'front'"),
        ({"attack": "rigde"}, RecipeError, "unknown name 'rigde'. Did you mean 'ridge'"),
        ({"copy": 1}, RecipeError, "unknown key 'copy'"),
        ({"auxiliary": pixels(1)}, DataError, "auxiliary: 1 images are too few"),
        ({"auxiliary": torch.rand(50, 1, 5, 5)}, DataError, r"private images are \(1, 6, 6\), auxiliary ones"),
        ({"auxiliary": np.full((50, 1, SIDE, SIDE), 7.0)}, DataError, r"^auxiliary: .*\[0, 1\]"),
        ({"images": torch.rand(3, SIDE)}, DataError, "^images: "),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(model, change, error, message):
    settings = {"images": pixels(3), "auxiliary": pixels(50), "tap": "front", **change}
    with pytest.raises(error, match=message):
        sg.reconstruct(model, settings.pop("images"), **settings)
