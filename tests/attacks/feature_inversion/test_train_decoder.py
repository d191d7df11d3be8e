import math

import pytest
import torch
from torch import nn

from sparseguard.attacks.feature_inversion.decoder import RidgeConv, RidgeMLP
from sparseguard.attacks.feature_inversion.ridge import Ridge
from support.attacks import attacked, error, linear


@pytest.mark.parametrize("attack", [RidgeConv(copies=2, epochs=2, width=4), RidgeMLP(copies=2, epochs=2, width=16)])
def test_a_decoder_is_never_worse_than_ridge_on_auxiliary_val(attack):
    torch.manual_seed(0)
    target = linear(torch.randn(10, 64))
    target.stages["first"].append(nn.Tanh())
    ridge, truth = attacked(Ridge(copies=2), target)
    decoder, _ = attacked(attack, target)
    base = error(ridge.reconstructions["auxiliary_val"], truth["auxiliary_val"])
    assert error(decoder.reconstructions["auxiliary_val"], truth["auxiliary_val"]) <= base + 1e-9
    curve = decoder.curves["auxiliary_val PSNR"]
    assert len(curve) == decoder.diagnostics["epochs"] + 1
    assert curve[0] == pytest.approx(-10 * math.log10(base), abs=1e-3)  # it starts as ridge


@pytest.mark.parametrize("loss", ["l1", "ssim"])
def test_other_losses_lead_elsewhere(loss):
    torch.manual_seed(0)
    target = linear(torch.randn(10, 64))
    target.stages["first"].append(nn.Tanh())
    results = [
        attacked(RidgeConv(copies=2, epochs=2, width=4, loss=which, patience=9), target)[0].reconstructions["private"]
        for which in ("mse", loss)
    ]
    assert not torch.equal(*results)
