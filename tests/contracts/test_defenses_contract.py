"""Contract of every defense on all backbones: building, weights, taps, noise."""

import functools
import itertools
import zlib
from dataclasses import replace

import pytest
import torch
from torch import nn

from sparseguard.core.config import describe, parse
from sparseguard.core.errors import RecipeError
from sparseguard.core.staged_model import FixedCode, remove_noise
from sparseguard.defenses import DEFENSES, Budget, Context
from sparseguard.report.analysis.names import CONTROL_DEFENSES
from sparseguard.sparse import SparseCode2d
from sparseguard.targets import BACKBONES, state_hash
from sparseguard.types import ImageSet
from support.defenses import make_quick

CLASSES = 3
SHAPE = (1, 8, 8)
PLAIN = ["linear", "linear-shallow"]
"""Of dense layers alone, so that all defenses can be built in seconds; some are tried on others in tests/targets."""
every = pytest.mark.parametrize(("defense", "backbone"), list(itertools.product(DEFENSES, PLAIN)))
each_defense = pytest.mark.parametrize("defense", DEFENSES)


def images(count=4):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def image_set(count=24):
    return ImageSet(pixels=images(count), labels=torch.arange(count) % CLASSES, classes=("a", "b", "c"))


def edit(defense, backbone):
    component = make_quick(defense)
    blueprint = replace(BACKBONES[backbone](width=20).blueprint(CLASSES), tap="first_linear")
    return component, component.edit_blueprint(blueprint, prepared(defense, backbone))


@functools.cache
def prepared(defense, backbone):
    blueprint = replace(BACKBONES[backbone](width=20).blueprint(CLASSES), tap="first_linear")
    budget = Budget(images=24, batch_size=8, epochs=2)
    with torch.random.fork_rng(), torch.enable_grad():
        return make_quick(defense).prepare(
            Context(private=image_set(), auxiliary=image_set(), blueprint=blueprint, seed=0, budget=budget)
        )


def build(defense, backbone="linear-shallow", seed=0):
    component, blueprint = edit(defense, backbone)
    return component, blueprint, blueprint.build(SHAPE, lambda stage: zlib.crc32(f"{seed} {stage}".encode()))


def run_seeded(model):
    """Its outputs, with noise of one seed."""
    torch.manual_seed(4)
    return model(images())


@every
@torch.no_grad()
def test_it_builds_and_every_tap_gives_one_row_an_image(defense, backbone):
    component, blueprint, model = build(defense, backbone)
    component.release(model)
    model.eval()
    assert model(images()).shape == (4, CLASSES)
    assert set(blueprint.taps) == set(BACKBONES[backbone]().blueprint(CLASSES).taps)
    for tap in blueprint.taps:
        released = model.forward_to(images(), blueprint.resolve_tap(tap))
        assert released.shape[0] == 4
        assert released.ndim == 2
        if tap.endswith(".relu") and not component.randomizes:
            assert torch.equal(
                released, model.forward_to(images(), blueprint.resolve_tap(tap.removesuffix(".relu"))).relu()
            )


@every
def test_the_same_seed_gives_the_same_weights(defense, backbone):
    hashes = []
    for stir, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(stir)
        hashes.append(state_hash(build(defense, backbone, seed)[2]))
    assert hashes[0] == hashes[1] != hashes[2]


@every
@torch.no_grad()
def test_stages_it_leaves_alone_start_as_without_it(defense, backbone):
    model, plain = build(defense, backbone)[2], build("none", backbone)[2]
    compared = []
    for name in list(plain.stages)[2:]:
        ours, theirs = model.stages[name].state_dict(), plain.stages[name].state_dict()
        if all(key in ours and ours[key].shape == value.shape for key, value in theirs.items()):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], value) for key, value in theirs.items())
            compared.append(name)
    assert "first" in compared or "head" in compared


@each_defense
def test_its_settings_survive_being_written_down(defense):
    component = DEFENSES[defense]()
    assert parse(DEFENSES[defense], describe(component), "[defense]") == component


@each_defense
def test_an_unknown_key_is_refused_with_the_known_ones(defense):
    with pytest.raises(RecipeError, match="unknown key 'no_such_key'") as refusal:
        parse(DEFENSES[defense], {"no_such_key": 1}, "[defense]")
    for key in describe(DEFENSES[defense]()):
        assert key in str(refusal.value)


@every
@torch.no_grad()
def test_its_weights_can_be_written_and_read(defense, backbone):
    model, other = build(defense, backbone)[2], build(defense, backbone, seed=5)[2]
    model(images())
    other.load_state_dict(model.state_dict())
    assert state_hash(other) == state_hash(model)
    assert torch.equal(run_seeded(other), run_seeded(model))


@every
@torch.no_grad()
def test_two_queries_differ_exactly_when_it_promises_noise(defense, backbone):
    component, blueprint, model = build(defense, backbone)
    component.release(model)
    model.eval()
    for tap in blueprint.taps:
        first, second = (model.forward_to(images(), blueprint.resolve_tap(tap)) for _ in range(2))
        assert torch.equal(first, second) is not component.randomizes


@every
@torch.no_grad()
def test_it_finds_itself_at_work(defense, backbone):
    component, _, model = build(defense, backbone)
    component.release(model)
    assert component.find_inactivity(model.eval(), images(8)) is None


@pytest.mark.parametrize("defense", ["standardize-only", "sparse-standard", "sca"])
def test_it_notices_that_its_stages_are_gone(defense):
    component, _, model = build(defense)
    for stage in {"codes", "stem"} & set(model.stages):
        model.stages[stage] = nn.Identity()
    assert component.find_inactivity(model.eval(), images())


@pytest.mark.parametrize("defense", ["sparse-standard", "sca"])
@torch.no_grad()
def test_it_notices_a_dictionary_of_zeros(defense):
    component, _, model = build(defense)
    layers = [module for module in model.modules() if isinstance(module, SparseCode2d)]
    for number, layer in reversed(list(enumerate(layers, start=1))):
        layer.dictionary.zero_()
        assert f"sparse layer {number} is dead" in component.find_inactivity(model.eval(), images())


@every
@torch.no_grad()
def test_a_known_output_stands_for_its_stage(defense, backbone):
    _, _, model = build(defense, backbone)
    model.eval()
    model = remove_noise(model)
    outputs = model.outputs(images())
    assert torch.equal(list(outputs.values())[-1], model(images()))
    for stage, known in outputs.items():
        again = model.outputs(images(), {stage: 2 * known})
        assert list(again) == list(outputs)
        names = list(outputs)
        assert all(torch.equal(again[name], outputs[name]) for name in names[: names.index(stage)])
        assert torch.equal(again[stage], 2 * known)
    with pytest.raises(RecipeError, match=r"no stage 'stemm'.*stem"):
        model.outputs(images(), {"stemm": images()})


@pytest.mark.parametrize("defense", ["sparse-standard", "sca"])
@pytest.mark.parametrize("backbone", PLAIN)
def test_its_first_sparse_layer_is_a_stage_that_does_not_learn(defense, backbone):
    component, blueprint, model = build(defense, backbone)
    names = blueprint.stage_names()
    assert names.index("codes") + 1 == names.index("stem")
    assert [name for name, stage in model.stages.items() if isinstance(stage, FixedCode)] == ["codes"]
    assert not model.stages["codes"].learns
    assert model.stages["codes"].fingerprint() == build(defense, backbone)[2].stages["codes"].fingerprint()
    assert model.stages["codes"].fingerprint() != build(defense, backbone, seed=1)[2].stages["codes"].fingerprint()
    with pytest.raises(RecipeError, match="a stage 'codes' already"):
        component.edit_blueprint(blueprint, {})


@torch.no_grad()
def test_gaussian_noise_has_the_promised_standard_deviation():
    component, _, model = build("gaussian-noise")
    clean = model.forward_to(images(200), "first")
    component.release(model)
    noise = model.eval().forward_to(images(200), "first") - clean
    assert noise.std().item() == pytest.approx(component.sigma, rel=0.1)
    assert abs(noise.mean().item()) < 0.1 * component.sigma


def test_reports_and_defenses_agree_on_controls():
    assert set(CONTROL_DEFENSES) == {name for name, defense in DEFENSES.items() if defense.is_control}
