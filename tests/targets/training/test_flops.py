"""What a training step costs: counted by hand."""

import pytest
import torch

from sparseguard.core.progress import Silent
from sparseguard.data import DATASETS
from sparseguard.defenses.base import Defense
from sparseguard.targets import BACKBONES, Fit, state_hash, train
from sparseguard.targets.training.flops import count_step_flops


@pytest.mark.parametrize(("width", "classes", "batch"), [(7, 3, 5), (16, 10, 30)])
def test_a_plain_step_is_counted_as_by_hand(width, classes, batch):
    model = BACKBONES["linear-shallow"](width=width).blueprint(classes).build((1, 6, 5), lambda _: 0)
    before = state_hash(model)
    first, head = 2 * batch * 30 * width, 2 * batch * width * classes
    # forwards; gradients of both weights; the gradient of the hidden values (images need none)
    assert count_step_flops(model, (1, 6, 5), batch) == (first + head) + (first + head) + head
    assert state_hash(model) == before


def test_training_counts_its_own_first_step():
    private = DATASETS["fashion-mini"](private=100).load().private
    model = BACKBONES["linear-shallow"](width=16).blueprint(10).build(private.shape, lambda _: 0)
    fresh = BACKBONES["linear-shallow"](width=16).blueprint(10).build(private.shape, lambda _: 0)
    run = train(
        model,
        Defense(),
        {},
        private,
        Fit(epochs=2, batch_size=30),
        seed=1,
        device=torch.device("cpu"),
        progress=Silent(),
        label="t",
    )
    assert run.step_flops == count_step_flops(fresh, private.shape, 30)
