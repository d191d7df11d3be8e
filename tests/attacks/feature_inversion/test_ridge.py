"""Ridge against the normal equations, and what stands on it."""

import numpy as np
import pytest
import torch
from torch import nn

from sparseguard.attacks import AttackContext
from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.feature_inversion._decoders.networks import ResidualDecoder
from sparseguard.attacks.feature_inversion.decoder import RidgeConv
from sparseguard.attacks.feature_inversion.ridge import Ridge
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import StagedModel
from sparseguard.types import AttackInput, AuxiliaryData, ImageSet, Knowledge


def draws(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return ImageSet(
        pixels=torch.rand(count, 1, 8, 8, generator=generator),
        labels=torch.randint(3, (count,), generator=generator),
        classes=("a", "b", "c"),
    )


def scene(first, train=120):
    """Return access, inputs, context and the true images of a model with the tap at its one stage."""
    model = StagedModel({"flat": nn.Flatten(), "first": first}).eval()
    access = ModelAccess(
        model, tap="t", stage="first", knowledge=Knowledge.BLACK_BOX, seed=0, device=torch.device("cpu")
    )
    auxiliary, private = AuxiliaryData(train=images(train, 1), val=images(20, 2)), images(15, 3)
    inputs = {
        "private": AttackInput(count=15, observation=access.observe(private)),
        "auxiliary_val": AttackInput(count=20, observation=access.observe(auxiliary.val)),
    }
    context = AttackContext(auxiliary=auxiliary, seed=0, device=torch.device("cpu"), progress=Silent(), label="test")
    return access, inputs, context, {"private": private.images, "auxiliary_val": auxiliary.val.images}


def dense(width, seed=0):
    layer = nn.Linear(64, width)
    with torch.no_grad():
        layer.weight.copy_(draws(width, 64, seed=seed) / 8)
    return layer


def error(ours, theirs):
    return float((ours - theirs).square().mean())


@pytest.mark.parametrize("copies", [1, 4])
def test_images_are_reconstructed_through_an_invertible_linear_tap(copies):
    layer = nn.Linear(64, 64)
    with torch.no_grad():
        layer.weight.copy_(torch.linalg.qr(draws(64, 64))[0])
    access, inputs, context, truth = scene(layer)
    result, outside = Ridge(copies=copies)(access, inputs, context)
    assert outside == 0
    for part, originals in truth.items():
        assert -10 * np.log10(error(result.reconstructions[part], originals)) > 60
    assert result.diagnostics["copies"] == copies


def test_the_decoder_starts_as_its_guess():
    guess = torch.rand(3, 1, 7, 9)
    decoder = ResidualDecoder((5,), (1, 7, 9), 4, 1)
    assert torch.equal(decoder(torch.randn(3, 5), guess), guess)


def test_ridge_conv_is_never_worse_than_ridge_on_auxiliary_val():
    access, inputs, context, truth = scene(nn.Sequential(dense(40), nn.ReLU()), train=60)
    ridge, _ = Ridge(copies=2)(access, inputs, context)
    conv, _ = RidgeConv(copies=2, epochs=3, width=4)(access, inputs, context)
    base = error(ridge.reconstructions["auxiliary_val"], truth["auxiliary_val"])
    reached = error(conv.reconstructions["auxiliary_val"], truth["auxiliary_val"])
    assert reached <= base * (1 + 1e-6)
    assert conv.diagnostics["auxiliary_val_mse"] == pytest.approx(reached, rel=1e-5)
    assert conv.parameter_change > 0


def test_ridge_conv_falls_back_to_ridge_when_training_only_hurts():
    access, inputs, context, _ = scene(dense(40), train=60)
    ridge, _ = Ridge(copies=1)(access, inputs, context)
    conv, _ = RidgeConv(copies=1, epochs=2, width=4, lr=50.0)(access, inputs, context)
    assert conv.diagnostics["best_epoch"] == 0
    torch.testing.assert_close(conv.reconstructions["private"], ridge.reconstructions["private"], rtol=0, atol=1e-6)
