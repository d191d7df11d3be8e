import math

import pytest
import torch
from torch import nn

from sparseguard.attacks import AttackContext
from sparseguard.attacks.feature_inversion._train_decoder import Budget, fit, standardizing
from sparseguard.attacks.feature_inversion.decoder import RidgeConv, RidgeMLP
from sparseguard.attacks.feature_inversion.ridge import Ridge
from sparseguard.core.errors import TrainingError
from sparseguard.core.progress import Silent
from sparseguard.types import AuxiliaryData
from support.attacks import CPU, attacked, error, linear, smooth

CONTEXT = AttackContext(
    auxiliary=AuxiliaryData(train=smooth(4, 1), val=smooth(4, 2)), seed=0, device=CPU, progress=Silent(), label="toy"
)


def trained(error, epochs=6, patience=6):
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    rows = torch.randn(32, 2)
    data = (rows, rows.sum(1, keepdim=True))
    loss = lambda net, batch: (net(batch[0]) - batch[1]).square().mean()  # noqa: E731
    budget = Budget(epochs=epochs, batch_size=8, lr=0.1, patience=patience)
    return network, fit(network, lambda _: data, loss, error, budget, CONTEXT)


def test_the_weights_of_the_best_epoch_are_kept():
    seen, weights = [], []

    def error(network):
        weights.append(network.weight.detach().clone())
        seen.append([5.0, 3.0, 1.0, 2.0, 4.0, 6.0, 7.0][len(seen)])
        return seen[-1]

    network, training = trained(error)
    assert (training.best_epoch, training.epochs) == (2, 6)
    assert torch.equal(network.weight, weights[2])
    assert training.errors == tuple(seen)


def test_training_that_only_hurts_leaves_the_start():
    errors = iter([1.0, 2.0, 3.0, 4.0])
    network, training = trained(lambda _: next(errors), patience=3)
    torch.manual_seed(0)
    assert torch.equal(network.weight, nn.Linear(2, 1).weight)
    assert (training.best_epoch, training.epochs) == (0, 3)
    assert training.change > 0


def test_an_error_that_is_not_finite_is_a_failure():
    errors = iter([1.0, math.nan])
    with pytest.raises(TrainingError, match="not finite in epoch 1"):
        trained(lambda _: next(errors))


def test_it_learns_what_can_be_learned():
    network, training = trained(lambda net: float((net.weight.detach() - 1).square().mean()), epochs=60, patience=60)
    torch.testing.assert_close(network.weight, torch.ones(1, 2), atol=0.05, rtol=0)
    assert training.errors[-1] < 0.01 * training.errors[0]


def test_maps_are_standardized_by_channel_and_vectors_by_feature():
    values = torch.randn(50, 3, 4, 4) * torch.tensor([1.0, 5.0, 0.1]).view(3, 1, 1) + 2
    mean, spread = standardizing(values)
    assert mean.shape == (1, 3, 1, 1)
    scaled = (values - mean) / spread
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(3))
    assert standardizing(torch.randn(50, 7))[0].shape == (1, 7)


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
    assert len(curve) == decoder.notes["epochs"] + 1
    assert curve[0] == pytest.approx(-10 * math.log10(base), abs=1e-3)  # it starts as ridge


@pytest.mark.parametrize("loss", ["l1", "ssim"])
def test_other_losses_lead_elsewhere(loss):
    torch.manual_seed(0)
    target = linear(torch.randn(10, 64))
    target.stages["first"].append(nn.Tanh())
    made = [
        attacked(RidgeConv(copies=2, epochs=2, width=4, loss=which, patience=9), target)[0].reconstructions["private"]
        for which in ("mse", loss)
    ]
    assert not torch.equal(*made)
