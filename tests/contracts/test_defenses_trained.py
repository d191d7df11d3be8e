"""Contract of every defense and of combinations after training and release of the target."""

import functools
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sparseguard.attacks.access import ModelAccess
from sparseguard.core.checkpoint import load_weights
from sparseguard.core.progress import Silent
from sparseguard.defenses import DEFENSES
from sparseguard.pipeline.store import Store, TrainingFacts
from sparseguard.targets import Fit, Target, state_hash, train
from sparseguard.types import Knowledge
from support.defenses import (
    COMBINED,
    auxiliary_images,
    make_quick,
    plain_blueprint,
    prepare_quick,
    private_images,
    stage_seed,
)

TAP = "first_linear"
FIT = Fit(epochs=2, batch_size=30, lr=3e-3, patience=None)
CPU = torch.device("cpu")
FAST = [*DEFENSES, "sca+laplace-noise"]
each = pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in COMBINED if name not in FAST)]
)


def built(name):
    component = make_quick(name)
    blueprint = component.edit_blueprint(
        plain_blueprint("linear-shallow", 16, 10), prepare_quick(name, "linear-shallow")
    )
    return component, blueprint, blueprint.build(private_images().shape, stage_seed)


def fitted(name, **options):
    component, blueprint, model = built(name)
    options = {"progress": Silent(), **options}
    state = prepare_quick(name, "linear-shallow")
    run = train(
        model,
        component,
        state,
        private_images(),
        FIT,
        seed=1,
        device=CPU,
        label="t",
        tap_stage=blueprint.resolve_tap(TAP),
        **options,
    )
    return component, blueprint, model, run


@functools.cache
def trained(name):
    return fitted(name)


def released(name, weights):
    """The released target from stored weights."""
    component, blueprint, model = built(name)
    load_weights(model, weights, Path("nowhere"))
    component.release(model)
    return component, Target(model=model, taps=dict(blueprint.taps), epochs=2, best_epoch=2)


def access(target, seed=7):
    stage = target.taps[TAP]
    return ModelAccess(target.model, tap=TAP, stage=stage, knowledge=Knowledge.BLACK_BOX, seed=seed, device=CPU)


@each
def test_it_changes_the_features(name):
    """Under the noise of one seed, so that a difference is the defense's."""
    _, target = released(name, trained(name)[2].state_dict())
    _, bare = released("none", trained("none")[2].state_dict())
    ours, theirs = (
        access(target).observe(auxiliary_images()).features,
        access(bare).observe(auxiliary_images()).features,
    )
    assert (name == "none") == (ours.shape == theirs.shape and torch.equal(ours, theirs))


@each
def test_it_is_on_when_attacked(name):
    component, target = released(name, trained(name)[2].state_dict())
    before = state_hash(target.model)
    model_access = access(target)
    first, second = model_access.observe(auxiliary_images()).features, model_access.observe(auxiliary_images()).features
    assert torch.equal(first, second) is not component.randomizes
    assert torch.equal(first, access(target).observe(auxiliary_images()).features)
    assert component.find_inactivity(target.model, auxiliary_images().images) is None
    assert state_hash(target.model) == before


@each
def test_its_target_survives_being_stored(name, tmp_path):
    model, store = trained(name)[2], Store(tmp_path)
    state = prepare_quick(name, "linear-shallow")
    store.save_target("key", model.state_dict(), state, TrainingFacts())
    weights, stored, _ = store.load_target("key")
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[key], value) for key, value in state.items())
    _, target = released(name, weights)
    _, same = released(name, model.state_dict())
    assert torch.equal(
        access(target).observe(auxiliary_images()).features, access(same).observe(auxiliary_images()).features
    )


class KilledError(Exception):
    """Stands for a kill between two epochs."""


class Interrupted(Silent):
    """Kills the training in its fifth step; an epoch has three."""

    @contextmanager
    def task(self, label, total):
        seen = [0]

        def advance(steps):
            seen[0] += steps
            if label == "t" and seen[0] == 5:
                raise KilledError

        yield advance


@each
def test_a_resumed_training_ends_with_the_same_weights(name, tmp_path):
    checkpoint = tmp_path / "c.safetensors"
    with pytest.raises(KilledError):
        fitted(name, progress=Interrupted(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert checkpoint.exists()
    _, _, resumed, run = fitted(name, checkpoint=checkpoint, checkpoint_seconds=0.0)
    straight, before = trained(name)[2:]
    assert state_hash(resumed) == state_hash(straight)
    assert run.history == before.history


@each
def test_its_figures_are_finite(name):
    component, target = released(name, trained(name)[2].state_dict())
    facts = component.facts(target.model, auxiliary_images().images, prepare_quick(name, "linear-shallow"))
    assert all(torch.isfinite(torch.tensor(float(value))) for value in facts.values())


@each
def test_training_is_counted(name):
    assert trained(name)[3].step_flops > 0
