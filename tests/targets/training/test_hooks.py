"""Hooks of defenses that learn beside the target or look at it between epochs."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseguard.core.atomic_io import read_tensors
from sparseguard.core.errors import RecipeError
from sparseguard.defenses.base import AuxiliaryNetwork, Defense
from sparseguard.targets import BACKBONES, Fit, state_hash
from sparseguard.types import Phase
from support.small_training import PRIVATE, Interrupted, KilledError, fitted

FIT = Fit(epochs=4, batch_size=30, patience=None)


class Looking(Defense):
    """Adds the epoch and what it saw of the model."""

    def phases(self, epochs):
        return Phase(name="one", epochs=1), Phase(name="two", epochs=epochs - 1)

    def on_epoch_start(self, context):
        assert not context.model.training
        assert len(context.images) == 90
        if not context.starts_phase:
            return {}
        return {context.phase: torch.stack([weight.sum() for weight in context.model.parameters()]) + torch.rand(1)}

    def penalty(self, batch):
        assert set(batch.state) == ({"one"} if batch.epoch == 0 else {"one", "two"})
        return batch.state[batch.phase].mean() * batch.logits.square().mean()


class Adversary(AuxiliaryNetwork):
    def __init__(self, width):
        super().__init__()
        self.decoder = nn.Linear(width, 1)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=0.01)

    def learn(self, batch):
        loss = F.mse_loss(self.decoder(batch.outputs["first"].detach()), batch.images.mean((1, 2, 3))[:, None])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Contested(Defense):
    def build_auxiliary_network(self, model, tap_stage, images):
        return Adversary(model.forward_to(images, "first").shape[1])

    def penalty(self, batch):
        return batch.auxiliary_network.decoder.weight.detach().square().sum() * batch.logits.square().mean()


@pytest.mark.parametrize("kind", [Looking, Contested])
def test_what_it_learned_is_in_the_checkpoint(kind, tmp_path):
    straight, run = fitted(kind(), FIT)
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(KilledError):
        fitted(kind(), FIT, progress=Interrupted(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    kept = {name.split("/")[0] for name in read_tensors(checkpoint)[0]}
    assert kept >= ({"learned"} if kind is Looking else {"auxiliary_network", "auxiliary_network optimizer"})
    resumed, again = fitted(kind(), FIT, checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert state_hash(resumed) == state_hash(straight)
    assert again.history == run.history


def test_an_auxiliary_network_leaves_the_start_of_training_alone():
    class Idle(Contested):
        def penalty(self, batch):
            return None

    assert state_hash(fitted(Idle(), FIT)[0]) == state_hash(fitted(Defense(), FIT)[0])


def test_who_chooses_no_epoch_keeps_the_last():
    class Last(Defense):
        chooses_epoch = False

    fit = Fit(epochs=12, lr=0.05, schedule="constant", patience=2)
    _, run = fitted(Last(), fit)
    assert run.epoch == run.best_epoch == 12
    assert fitted(Defense(), fit)[1].epoch < 12


def test_added_images_are_no_part_of_the_batchs_own():
    class Adding(Defense):
        def transform(self, images, labels, *, state, epoch, generator):
            return torch.cat([images, 1 - images]), torch.cat([labels, labels])

        def penalty(self, batch):
            assert batch.own_count * 2 == len(batch.images) == len(batch.logits)
            torch.testing.assert_close(
                batch.cross_entropy(), F.cross_entropy(batch.logits[: batch.own_count], batch.labels[: batch.own_count])
            )
            return

    added, run = fitted(Adding(), FIT)
    plain, other = fitted(Defense(), FIT)
    torch.testing.assert_close(added.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-4)
    assert run.step_flops == 2 * other.step_flops


def test_a_stage_inserted_after_the_tap_becomes_the_tap():
    blueprint = replace(BACKBONES["linear"](width=8).blueprint(3), tap="first_linear")
    placed = blueprint.insert_after_tap("one", lambda _: nn.Tanh()).insert_after_tap("two", lambda _: nn.Identity())
    names = placed.stage_names()
    assert names[names.index("first") :][:4] == ["first", "one", "two", "first_relu"]
    assert placed.taps == {**blueprint.taps, "first_linear": "two"}
    with pytest.raises(RecipeError, match="'one' already"):
        placed.insert_after_tap("one", lambda _: nn.Tanh())
    with pytest.raises(RecipeError, match="acts at the tap"):
        replace(blueprint, tap="").insert_after_tap("one", lambda _: nn.Tanh())
    model = placed.build(PRIVATE.shape, lambda _: 0)
    outputs = model.outputs(PRIVATE.images[:2])
    assert torch.equal(outputs["two"], outputs["first"].tanh())
