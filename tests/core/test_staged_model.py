"""Noise and stages that training leaves alone."""

import pytest
import torch
from scipy import stats
from torch import nn

from sparseguard.core.staged_model import Noise, StagedModel, remove_noise
from sparseguard.sparse import SparseCode2d


@pytest.mark.parametrize(("kind", "law"), [("gaussian", stats.norm), ("laplace", stats.laplace)])
def test_noise_has_its_distribution_and_is_fresh_at_every_query(kind, law):
    noise = Noise(kind, 0.7).eval()
    torch.manual_seed(0)
    zeros = torch.zeros(200, 50)
    first, second = noise(zeros), noise(zeros)
    assert stats.kstest(first.flatten().numpy(), law(scale=0.7).cdf).pvalue > 0.01
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.05
    assert torch.isfinite(first).all()


def test_the_first_noise_is_found_and_all_of_it_can_be_taken_out():
    model = StagedModel({"first": nn.Linear(3, 3), "last": nn.Linear(3, 2)})
    assert model.find_noise() is None
    plain = model(torch.ones(1, 3))
    model.append_to("last", Noise("laplace", 0.2))
    model.append_to("first", Noise("gaussian", 0.1))
    stage, noise = model.find_noise()
    assert (stage, noise.kind, noise.scale) == ("first", "gaussian", 0.1)
    assert not torch.equal(model(torch.ones(1, 3)), plain)
    assert torch.equal(remove_noise(model)(torch.ones(1, 3)), plain)
    assert model.find_noise() is None


def test_what_is_known_before_training_ends_where_training_begins():
    codes = SparseCode2d(1, 2, 3, steps=2)
    model = StagedModel({"input": nn.Identity(), "codes": codes, "norm": nn.BatchNorm2d(2), "flat": nn.Flatten()})
    assert model.list_untrained_stages() == ["input", "codes"]
    learning = StagedModel({"input": nn.Identity(), "codes": SparseCode2d(1, 2, 3, steps=2, backprop=True)})
    assert learning.list_untrained_stages() == ["input"]
