from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import Blueprint, Stage
from sparseguard.data import DATASETS
from sparseguard.defenses.regularization.arl import AdversarialRepresentation, Adversary
from sparseguard.targets import BACKBONES, Fit, state_hash, train
from sparseguard.types import BatchContext

PRIVATE = DATASETS["fashion-mini"](private=100).load().private


def blueprint(width=16):
    return replace(BACKBONES["linear-shallow"](width=width).blueprint(10), tap="first_linear")


def built(defense):
    return defense.edit_blueprint(blueprint(), {}).build(PRIVATE.shape, len)


def step(features, auxiliary_network, images=None, own_count=None):
    n = len(features)
    images = (
        torch.rand(n, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=features.dtype)
        if images is None
        else images
    )
    return BatchContext(
        images=images,
        labels=torch.zeros(n, dtype=torch.long),
        outputs={"standardized": features},
        logits=torch.zeros(n, 2),
        state={},
        epoch=0,
        phase="train",
        own_count=own_count,
        tap_stage="standardized",
        auxiliary_network=auxiliary_network,
    )


def test_the_decoder_learns_to_read_a_fixed_target():
    torch.manual_seed(0)
    component = AdversarialRepresentation(width=64)
    model = built(component).eval()
    images = PRIVATE.images[:64]
    adversary = component.build_auxiliary_network(model, "standardized", images[:2])
    taken = step(model.forward_to(images, "standardized").detach(), adversary, images)
    errors = []
    for _ in range(150):
        adversary.learn(taken)
        errors.append(
            float(((adversary.decoder(taken.outputs["standardized"]).detach() - images.flatten(1)) ** 2).mean())
        )
    mean_image = float(images.var(0, correction=0).mean())
    assert errors[-1] < 0.6 * mean_image < 0.6 * errors[0]


def test_it_takes_as_many_steps_as_set():
    features = torch.randn(5, 4)
    weights = []
    for steps, times in ((3, 1), (1, 3)):
        torch.manual_seed(0)
        adversary = Adversary(features=4, pixels=9, width=6, steps=steps)
        for _ in range(times):
            adversary.learn(step(features, adversary))
        weights.append(state_hash(adversary))
    assert weights[0] == weights[1]


def test_neither_learns_from_the_others_loss():
    torch.manual_seed(0)
    component, features = AdversarialRepresentation(), torch.randn(5, 4, requires_grad=True)
    adversary = Adversary(features=4, pixels=9, width=6, steps=2)
    adversary.learn(step(features, adversary))
    assert features.grad is None
    adversary.optimizer.zero_grad(set_to_none=True)
    before = state_hash(adversary)
    component.penalty(step(features, adversary)).backward()
    assert all(parameter.grad is None for parameter in adversary.parameters())
    assert state_hash(adversary) == before


def decoded(adversary, features):
    """The decoder, written out."""
    first, last = adversary.decoder[1], adversary.decoder[3]
    hidden = (features @ first.weight.T + first.bias).clamp_min(0)
    return 1 / (1 + torch.exp(-(hidden @ last.weight.T + last.bias)))


def skilled(features, images, width=8, steps=300):
    adversary = Adversary(features=features.shape[1], pixels=9, width=width, steps=steps).double()
    adversary.optimizer = torch.optim.Adam(adversary.parameters(), lr=0.02)
    adversary.learn(step(features, adversary, images))
    return adversary


def test_the_penalty_is_the_decoders_error_in_units_of_the_mean_images():
    torch.manual_seed(0)
    features = torch.randn(6, 4, dtype=torch.float64)
    images = torch.rand(6, 1, 3, 3, dtype=torch.float64)
    adversary = skilled(features[:4], images[:4])
    truth = images[:4].flatten(1)
    error = ((decoded(adversary, features[:4]) - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()
    assert 0 < error < 0.9
    component = AdversarialRepresentation(weight=2.5)
    torch.testing.assert_close(component.penalty(step(features, adversary, images, own_count=4)), -2.5 * error)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: component.penalty(step(z, adversary, images, own_count=4)), features)


def test_nothing_is_gained_beyond_the_mean_images_error():
    torch.manual_seed(0)
    features = torch.randn(6, 4, dtype=torch.float64)
    images = torch.rand(6, 1, 3, 3, dtype=torch.float64)
    adversary = skilled(features, images)
    wrong = features.flip(0).requires_grad_()
    penalty = AdversarialRepresentation(weight=2.0).penalty(step(wrong, adversary, images))
    penalty.backward()
    assert float(penalty.detach()) == -2
    assert not wrong.grad.any()


def test_what_leaks_has_mean_0_and_variance_1_whatever_the_scale():
    torch.manual_seed(0)
    model = built(AdversarialRepresentation())
    stage = model.stages["standardized"].train()
    assert not list(stage.parameters())
    values = model.forward_to(PRIVATE.images, "first").detach()
    released = [stage(scale * values + shift).double() for scale, shift in ((1, 0), (50, 3))]
    for answer in released:
        torch.testing.assert_close(answer.mean(0), torch.zeros(16, dtype=torch.float64), atol=1e-5, rtol=0)
        torch.testing.assert_close(answer.var(0, correction=0), torch.ones(16, dtype=torch.float64), atol=1e-2, rtol=0)
    torch.testing.assert_close(released[0], released[1], atol=1e-2, rtol=0)


def test_feature_maps_are_standardized_by_channel_and_decoded_flat():
    stages = (Stage("conv", lambda _: nn.Conv2d(1, 2, 3)), Stage("head", lambda _: nn.Flatten()))
    component = AdversarialRepresentation()
    placed = component.edit_blueprint(Blueprint(stages=stages, taps={"maps": "conv"}, tap="maps"), {})
    model = placed.build(PRIVATE.shape, len)
    adversary = component.build_auxiliary_network(model, "standardized", PRIVATE.images[:2])
    assert isinstance(model.stages["standardized"], nn.BatchNorm2d)
    assert adversary.decoder(model.forward_to(PRIVATE.images[:3], "standardized")).shape == (3, 784)


def test_it_notices_that_its_stage_is_gone():
    component = AdversarialRepresentation()
    model = built(component)
    assert component.find_inactivity(model, PRIVATE.images) is None
    del model.stages["standardized"]
    assert "no standardized tap" in component.find_inactivity(model, PRIVATE.images)
    assert "decoder" in component.find_unaccounted_access()


class KilledError(Exception):
    pass


class Interrupted(Silent):
    """Kills the training in its sixth step."""

    @contextmanager
    def task(self, label, total):
        seen = [0]

        def advance(steps):
            seen[0] += steps
            if seen[0] == 6:
                raise KilledError

        yield advance


def trained(defense, epochs=3, **options):
    model = built(defense)
    fit = Fit(epochs=epochs, batch_size=30, lr=0.01, patience=None)
    options = {"progress": Silent(), **options}
    cpu = torch.device("cpu")
    train(model, defense, {}, PRIVATE, fit, seed=1, device=cpu, label="t", tap_stage="standardized", **options)
    return model


def test_a_resumed_training_ends_with_the_same_weights(tmp_path):
    component, checkpoint = AdversarialRepresentation(decoder_steps=2), tmp_path / "c.safetensors"
    straight = trained(component)
    with pytest.raises(KilledError):
        trained(component, progress=Interrupted(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert checkpoint.exists()
    resumed = trained(component, checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert state_hash(resumed) == state_hash(straight)
    assert state_hash(trained(replace(component, weight=0.0))) != state_hash(straight)
