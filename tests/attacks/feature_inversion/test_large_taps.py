"""Taps that are read from disk give the same attack as taps in memory."""

import pytest
import torch
from torch import nn

from sparseguard.attacks import ATTACKS
from sparseguard.core.config import parse
from sparseguard.core.staged_model import StagedModel
from sparseguard.numerics.ridge import ExplicitMap, KernelMap, fit_ridge
from support.attacks import attacked, linear

LARGE = {
    "nearest-neighbor": {},
    "ridge": {"copies": 2},
    "local-ridge": {"copies": 1, "neighbors": [8]},
    "ridge-conv": {"copies": 2, "epochs": 2, "width": 4},
    "ridge-mlp": {"copies": 1, "epochs": 2, "width": 8},
    "gradient-inversion": {"steps": 4, "probe_steps": 2},
}
"""What an audit attacks with, and its kin."""


def convolutions(channels: int) -> StagedModel:
    """A target whose tap is a map with more values than there are images."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(1, channels, 3, padding=1)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    return StagedModel({"first": nn.Sequential(layer, nn.ReLU())}).eval().requires_grad_(False)


@pytest.mark.parametrize("target", [linear(torch.randn(30, 64)), convolutions(2)], ids=["vector", "map"])
@pytest.mark.parametrize(("name", "settings"), LARGE.items(), ids=list(LARGE))
def test_attacks_do_not_depend_on_where_features_lie(name, settings, target, monkeypatch, tmp_path):
    attack = parse(ATTACKS[name], settings, name)
    inside, _ = attacked(attack, target)
    monkeypatch.setenv("SPARSEGUARD_TAP_MIB", "0")
    monkeypatch.setenv("SPARSEGUARD_SCRATCH", str(tmp_path))
    outside, _ = attacked(attack, target)
    for part, images in inside.reconstructions.items():
        torch.testing.assert_close(outside.reconstructions[part], images, rtol=0, atol=2e-4)
    if inside.parameter_change is not None:
        assert outside.parameter_change == pytest.approx(inside.parameter_change, rel=1e-3)


def test_the_map_by_inner_products_is_the_map_by_weights(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    features, pixels = torch.rand(20, 90, generator=generator), torch.rand(20, 6, generator=generator)
    explicit = fit_ridge(features[:15], pixels[:15], features[15:], pixels[15:]).mapping
    monkeypatch.setenv("SPARSEGUARD_TAP_MIB", "0")
    kernel = fit_ridge(features[:15], pixels[:15], features[15:], pixels[15:]).mapping
    assert isinstance(explicit, ExplicitMap)
    assert isinstance(kernel, KernelMap)
    torch.testing.assert_close(kernel(features), explicit(features))
    assert kernel.size == pytest.approx(explicit.size)
    assert kernel(features[:0]).shape == (0, 6)
