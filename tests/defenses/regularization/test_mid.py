import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence

from sparseguard.core.errors import RecipeError
from sparseguard.core.staged_model import Blueprint, Stage, remove_noise
from sparseguard.defenses.regularization.mid import (
    MutualInformationDefense,
    Sample,
    compute_divergence,
    split_statistics,
)
from sparseguard.targets import BACKBONES
from sparseguard.types import BatchContext

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def built(defense, width=21):
    blueprint = replace(BACKBONES["linear-shallow"](width=width).blueprint(3), tap="first_linear")
    return defense.edit_blueprint(blueprint, {}).build((1, 8, 8), len)


def normal(statistics):
    """The distributions as the source writes them."""
    k = statistics.shape[1] // 2
    return Normal(statistics[:, :k], torch.log1p(torch.exp(statistics[:, k:] - 5)))


def step(statistics, own_count=None):
    n = len(statistics)
    return BatchContext(
        images=torch.zeros(n, 1, 2, 2),
        labels=torch.zeros(n, dtype=torch.long),
        outputs={"statistics": statistics},
        logits=torch.zeros(n, 3),
        state={},
        epoch=0,
        phase="train",
        own_count=own_count,
    )


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=5))
def test_the_divergence_is_that_of_normal_distributions(pairs):
    row = torch.tensor(pairs, dtype=torch.float64).T.reshape(1, -1)
    law = normal(row)
    expected = kl_divergence(law, Normal(torch.zeros_like(law.loc), torch.ones_like(law.scale))).sum(1)
    ours = compute_divergence(*split_statistics(row))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)  # log1p(exp(t)) has that many digits at t = -25


def test_the_divergence_stays_finite_where_no_noise_is_left():
    row = torch.tensor([[0.0, -1000.0]], requires_grad=True)
    divergence = compute_divergence(*split_statistics(row)).sum()
    divergence.backward()
    assert torch.isfinite(divergence)
    assert torch.isfinite(row.grad).all()


@pytest.mark.parametrize("own_count", [None, 2, 0])
def test_the_penalty_is_the_mean_over_the_batchs_own_images(own_count):
    statistics = torch.randn(5, 8, dtype=torch.float64)
    law = normal(statistics[:own_count])
    divergence = kl_divergence(law, Normal(0.0, torch.ones(1, dtype=torch.float64))).sum(1)
    expected = 0.2 * float(divergence.mean()) if own_count != 0 else 0.0
    component = MutualInformationDefense(beta=0.2)
    assert float(component.penalty(step(statistics, own_count))) == pytest.approx(expected)
    statistics.requires_grad_()
    assert torch.autograd.gradcheck(lambda value: component.penalty(step(value, own_count)), statistics)


def test_samples_have_their_distribution_and_are_fresh_at_every_query():
    torch.manual_seed(0)
    statistics = torch.tensor([[0.3, -2.0, 5.5, 4.0]]).expand(20000, 4)
    sample, law = Sample().eval(), normal(statistics[:1])
    first, second = sample(statistics), sample(statistics)
    for k, (mean, spread) in enumerate(zip(law.loc[0].tolist(), law.scale[0].tolist(), strict=True)):
        assert stats.kstest(first[:, k].numpy(), stats.norm(mean, spread).cdf).pvalue > 0.01
        assert abs(stats.pearsonr(first[:, k], second[:, k]).statistic) < 0.03
    assert abs(stats.pearsonr(first[:, 0], first[:, 1]).statistic) < 0.03


@torch.no_grad()
def test_the_average_is_the_mean_of_many_answers():
    torch.manual_seed(0)
    statistics = torch.tensor([[0.3, -2.0, 5.5, 4.0]])
    many = Sample()(statistics.expand(40000, 4)).double()
    error = normal(statistics.double()).scale / 200
    assert ((many.mean(0) - Sample().average()(statistics)) / error).abs().max() < 4
    model = built(MutualInformationDefense()).eval()
    assert not torch.equal(model(IMAGES), model(IMAGES))
    quiet = remove_noise(model)
    assert torch.equal(quiet(IMAGES), quiet(IMAGES))
    assert torch.equal(quiet.forward_to(IMAGES, "bottleneck"), quiet.forward_to(IMAGES, "statistics")[:, :10])


@pytest.mark.parametrize(("dimension", "released"), [(None, 10), (3, 3), (40, 40)])
def test_it_leaks_half_as_many_values_or_as_many_as_set(dimension, released):
    model = built(MutualInformationDefense(dimension=dimension))
    assert model.forward_to(IMAGES, "bottleneck").shape == (6, released)
    assert model(IMAGES).shape == (6, 3)


def flat(shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 3))


def on_maps(name="head", **taps):
    stages = (Stage("conv", lambda _: nn.Conv2d(1, 6, 3)), Stage(name, flat))
    return Blueprint(stages=stages, taps={"maps": "conv", "logits": name, **taps}, tap="maps")


@pytest.mark.parametrize(("dimension", "channels"), [(None, 3), (5, 5)])
def test_on_a_grid_the_grid_stays_and_the_channels_are_the_bottleneck(dimension, channels):
    model = MutualInformationDefense(dimension=dimension).edit_blueprint(on_maps(), {}).build((1, 8, 8), len)
    assert model.forward_to(IMAGES, "bottleneck").shape == (6, channels, 6, 6)
    assert model(IMAGES).shape == (6, 3)
    mean, spread = split_statistics(model.forward_to(IMAGES, "statistics"))
    assert torch.equal(Sample().average()(model.forward_to(IMAGES, "statistics")), mean)
    torch.testing.assert_close(
        compute_divergence(mean, spread), compute_divergence(mean.flatten(1), spread.flatten(1)), rtol=1e-5, atol=1e-4
    )


def test_where_logits_leak_it_is_what_the_head_is_given():
    for blueprint in (on_maps(), on_maps("fc", last_hidden="conv")):
        placed = MutualInformationDefense().edit_blueprint(replace(blueprint, tap="logits"), {})
        assert placed.stage_names()[1:3] == ["statistics", "bottleneck"]
        assert placed.resolve_tap("logits") == placed.stage_names()[3]
        assert placed.build((1, 8, 8), len)(IMAGES).shape == (6, 3)


def test_a_tap_it_cannot_act_at_is_refused():
    with pytest.raises(RecipeError, match="does not name"):
        MutualInformationDefense().edit_blueprint(replace(on_maps("fc"), tap="logits"), {})
    fixed = MutualInformationDefense(dimension=5).edit_blueprint(replace(on_maps(), fixed_widths=True), {})
    with pytest.raises(RecipeError, match="takes 6 alone"):
        fixed.build((1, 8, 8), len)
    tokens = Blueprint(stages=(Stage("tokens", lambda _: nn.Flatten(2)),), taps={"t": "tokens"}, tap="t")
    last = Stage("out", flat)
    tokens = replace(tokens, stages=(*tokens.stages, last))
    with pytest.raises(RecipeError, match="a vector or a grid"):
        MutualInformationDefense().edit_blueprint(tokens, {}).build((1, 8, 8), len)


@torch.no_grad()
def test_it_notices_when_it_hides_nothing():
    component = MutualInformationDefense()
    model = built(component).eval()
    assert component.find_inactivity(model, IMAGES) is None
    model.stages["statistics"][1].bias[10:] = -5
    assert "noise is" in component.find_inactivity(model, IMAGES)
    assert "no noise" in component.find_inactivity(remove_noise(model), IMAGES)
    del model.stages["bottleneck"]
    assert "no bottleneck" in component.find_inactivity(model, IMAGES)


@torch.no_grad()
def test_it_reports_noise_and_divergence():
    component = MutualInformationDefense()
    model = built(component).eval()
    law = normal(model.forward_to(IMAGES, "statistics").double())
    facts = component.facts(model, IMAGES, {})
    assert facts["bottleneck_spread"] == pytest.approx(float(law.scale.mean()), rel=1e-5)
    divergence = kl_divergence(law, Normal(0.0, torch.ones(1, dtype=torch.float64))).sum(1).mean()
    assert facts["bottleneck_kl_nats"] == pytest.approx(float(divergence), rel=1e-5)
