"""The supervised loop: the best weights are kept, training stops in time, the rate is followed."""

import math

import pytest
import torch
from torch import nn

from sparseguard.core.errors import TrainingError
from sparseguard.numerics.supervised import Problem, Schedule, train_supervised


def train(validate, periods=6, patience=6, validates_start=True, rate=lambda step: 0.1):
    """Fit the sum of two numbers by a linear layer; ``validate`` takes the layer."""
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    rows = torch.randn(32, 2)
    batch = (rows, rows.sum(1, keepdim=True))
    problem = Problem(
        batches=lambda period: [batch] * 4,
        loss=lambda batch: (network(batch[0]) - batch[1]).square().mean(),
        validate=lambda: validate(network),
        name="toy",
    )
    schedule = Schedule(periods=periods, patience=patience, rate=rate, validates_start=validates_start)
    return network, train_supervised(network, problem, schedule)


def untrained():
    torch.manual_seed(0)
    return nn.Linear(2, 1).weight


def test_the_weights_of_the_best_period_are_kept():
    weights, errors = [], [5.0, 3.0, 1.0, 2.0, 4.0, 6.0, 7.0]

    def validate(network):
        assert not network.training
        weights.append(network.weight.detach().clone())
        return errors[len(weights) - 1]

    network, training = train(validate)
    assert (training.best, training.periods, training.errors) == (2, 6, tuple(errors))
    assert torch.equal(network.weight, weights[2])
    assert not network.training


def test_training_that_only_hurts_leaves_the_start():
    errors = iter([1.0, 2.0, 3.0, 4.0])
    network, training = train(lambda _: next(errors), patience=3)
    assert torch.equal(network.weight, untrained())
    assert (training.best, training.periods) == (0, 3)
    assert training.change > 0


def test_without_a_first_validation_the_start_does_not_compete():
    errors = iter([9.0, 9.5, 9.7])
    network, training = train(lambda _: next(errors), patience=2, validates_start=False)
    assert (training.best, training.periods) == (1, 3)
    assert training.errors == (math.inf, 9.0, 9.5, 9.7)
    assert not torch.equal(network.weight, untrained())


def test_an_error_that_is_not_finite_is_a_failure():
    errors = iter([1.0, math.nan])
    with pytest.raises(TrainingError, match=r"toy: .* not finite in epoch 1"):
        train(lambda _: next(errors))


def test_it_learns_a_known_function():
    network, training = train(lambda net: float((net.weight.detach() - 1).square().mean()), periods=60, patience=60)
    torch.testing.assert_close(network.weight, torch.ones(1, 2), atol=0.05, rtol=0)
    assert training.errors[-1] < 0.01 * training.errors[0]


def test_steps_at_rate_zero_change_nothing():
    features = []

    def rate(step):
        features.append(step)
        return 0.0

    network, training = train(lambda _: 1.0, periods=2, rate=rate)
    assert torch.equal(network.weight, untrained())
    assert training.change == 0
    assert features[-8:] == list(range(8))  # two periods of four batches
