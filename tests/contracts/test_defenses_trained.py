"""What every defense promises of a trained and released target, asked of all of them and of some combinations."""

import functools
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from sparseguard.attacks.access import Leak
from sparseguard.core.checkpoint import load_weights
from sparseguard.core.progress import Silent
from sparseguard.defenses import DEFENSES
from sparseguard.pipeline.store import Store
from sparseguard.targets import Fit, Target, state_hash, train
from sparseguard.types import Knowledge
from support.defenses import COMBINED, few_private, few_public, plain, prepared, quick, seed_of

TAP = "first_linear"
FIT = Fit(epochs=2, batch_size=30, lr=3e-3, patience=None)
CPU = torch.device("cpu")
each = pytest.mark.parametrize("name", [*DEFENSES, *COMBINED])


def built(name):
    piece = quick(name)
    blueprint = piece.edit_blueprint(plain("linear-shallow", 16, 10), prepared(name, "linear-shallow"))
    return piece, blueprint, blueprint.build(few_private().shape, seed_of)


def fitted(name, **options):
    piece, blueprint, model = built(name)
    options = {"progress": Silent(), **options}
    state = prepared(name, "linear-shallow")
    run = train(
        model, piece, state, few_private(), FIT, seed=1, device=CPU, label="t", tap_stage=blueprint.resolve_tap(TAP), **options
    )
    return piece, blueprint, model, run


@functools.cache
def trained(name):
    return fitted(name)


def released(name, weights):
    """The target as it leaves, from stored weights."""
    piece, blueprint, model = built(name)
    load_weights(model, weights, Path("nowhere"))
    piece.release(model)
    return piece, Target(model=model, taps=dict(blueprint.taps), epochs=2, best_epoch=2)


def leak_of(target, seed=7):
    stage = target.taps[TAP]
    return Leak(target.model, tap=TAP, stage=stage, knowledge=Knowledge.BLACK_BOX, seed=seed, device=CPU)


@each
def test_it_changes_what_leaks(name):
    """Under the noise of one seed, so that a difference is the defense's."""
    _, target = released(name, trained(name)[2].state_dict())
    _, bare = released("none", trained("none")[2].state_dict())
    ours, theirs = leak_of(target).observe(few_public()).features, leak_of(bare).observe(few_public()).features
    assert (name == "none") == (ours.shape == theirs.shape and torch.equal(ours, theirs))


@each
def test_it_is_on_when_attacked(name):
    piece, target = released(name, trained(name)[2].state_dict())
    before = state_hash(target.model)
    leak = leak_of(target)
    first, second = leak.observe(few_public()).features, leak.observe(few_public()).features
    assert torch.equal(first, second) is not piece.randomizes
    assert torch.equal(first, leak_of(target).observe(few_public()).features)
    assert piece.find_inactivity(target.model, few_public().images) is None
    assert state_hash(target.model) == before


@each
def test_its_target_survives_being_stored(name, tmp_path):
    model, store = trained(name)[2], Store(tmp_path)
    state = prepared(name, "linear-shallow")
    store.save_target("key", model.state_dict(), state, {})
    weights, kept, _ = store.load_target("key")
    assert kept.keys() == state.keys()
    assert all(torch.equal(kept[key], value) for key, value in state.items())
    _, target = released(name, weights)
    _, same = released(name, model.state_dict())
    assert torch.equal(leak_of(target).observe(few_public()).features, leak_of(same).observe(few_public()).features)


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
    piece, target = released(name, trained(name)[2].state_dict())
    told = piece.facts(target.model, few_public().images, prepared(name, "linear-shallow"))
    assert all(torch.isfinite(torch.tensor(float(value))) for value in told.values())


@each
def test_training_is_counted(name):
    assert trained(name)[3].step_flops > 0
