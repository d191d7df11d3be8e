"""SCA's settings: which layers learn and how, learned dictionaries, sizes, normalization."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseguard.core.config import describe, parse
from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import FixedCode, StagedModel
from sparseguard.data import DATASETS
from sparseguard.defenses.base import Budget, Context, Defense
from sparseguard.defenses.sparse_coding._inspect import find_sparse_layers
from sparseguard.defenses.sparse_coding.sca import SparseCodingArchitecture
from sparseguard.defenses.sparse_coding.sparse_standard import SparseStandard
from sparseguard.sparse import SparseCode2d, standardize
from sparseguard.targets import BACKBONES, Fit, train
from sparseguard.types import ImageSet

DATA = DATASETS["fashion-mini"](private=60, auxiliary=150).load()
CPU = torch.device("cpu")
PLAIN = BACKBONES["linear-shallow"](width=16).blueprint(10)
SMALL: dict[str, Any] = {"features": (4, 5), "steps": (6, 6)}


def context(private: ImageSet = DATA.private, seed: int = 3) -> Context:
    budget = Budget(images=54, batch_size=30, epochs=1)
    return Context(private=private, auxiliary=DATA.auxiliary, blueprint=PLAIN, seed=seed, budget=budget)


def built(defense: Defense, state: Any = None) -> StagedModel:
    return defense.edit_blueprint(PLAIN, state or {}).build(DATA.private.shape, lambda stage: len(stage))


def after_an_epoch(defense: Defense) -> StagedModel:
    model, fit = built(defense), Fit(epochs=1, batch_size=30, patience=None)
    train(model, defense, {}, DATA.private, fit, seed=1, device=CPU, progress=Silent(), label="t")
    return model


def atoms(model: StagedModel) -> list[Tensor]:
    return [layer.dictionary.detach() for layer in find_sparse_layers(model)]


TWO = list(itertools.product([False, True], repeat=2))


NEITHER, BOTH = (False, False), (True, True)


@pytest.mark.parametrize(
    ("hebbian", "backprop"),
    [
        *((one, NEITHER) for one in TWO),
        *((NEITHER, one) for one in TWO[1:]),
        ((True, False), (False, True)),
        (BOTH, BOTH),
    ],
)
def test_layers_learn_as_switched(hebbian: tuple[bool, bool], backprop: tuple[bool, bool]) -> None:
    defense = SparseCodingArchitecture(**SMALL, hebbian=hebbian, backprop=backprop)
    start, end = atoms(built(defense)), atoms(model := after_an_epoch(defense))
    for index in range(2):
        assert torch.equal(start[index], end[index]) is not (hebbian[index] or backprop[index])
        torch.testing.assert_close(end[index].flatten(1).norm(dim=1), torch.ones(len(end[index])))
    first = model.stages["codes"]
    assert isinstance(first, FixedCode)
    assert first.learns is (hebbian[0] or backprop[0])


@pytest.mark.parametrize(("single", "each"), [(True, (False, True, True)), (False, (False, False, False))])
def test_a_single_switch_leaves_the_first_layer_alone(single: bool, each: tuple[bool, ...]) -> None:
    short = SparseCodingArchitecture(features=(2, 3, 4), steps=(3, 3, 3), hebbian=single, backprop=single)
    assert short.hebbians == short.backprops == each
    layers = find_sparse_layers(built(short))
    assert tuple(layer.hebbian for layer in layers) == each
    assert tuple(layer.dictionary.requires_grad for layer in layers) == each


@pytest.mark.parametrize("wrong", [{"hebbian": (True,)}, {"backprop": (True, False, True)}, {"lambd": (0.1,)}])
def test_as_many_entries_as_layers_are_needed(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one entry for each layer"):
        SparseCodingArchitecture(**wrong)


def test_switches_survive_being_written_down() -> None:
    defense = SparseCodingArchitecture(hebbian=(True, False), backprop=False, lambd=(0.1, 0.25), atoms="pretrained")
    assert parse(SparseCodingArchitecture, describe(defense), "[defense]") == defense
    with pytest.raises(RecipeError, match="hebbian"):
        parse(SparseCodingArchitecture, {"hebbian": "yes"}, "[defense]")


@pytest.mark.parametrize(
    ("settings", "shapes"),
    [
        ({"features": (3,), "steps": (4,)}, [(3, 28, 28)]),
        ({"features": (3, 4, 5), "steps": (4, 4, 4)}, [(3, 28, 28), (4, 28, 28), (5, 28, 28)]),
        ({**SMALL, "kernel_size": 7}, [(4, 28, 28), (5, 28, 28)]),
        ({**SMALL, "stride": 2}, [(4, 14, 14), (5, 7, 7)]),
        ({**SMALL, "lambd": (0.1, 0.25)}, [(4, 28, 28), (5, 28, 28)]),
    ],
)
def test_sizes(settings: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    defense = SparseCodingArchitecture(**settings)
    model = after_an_epoch(defense).eval()
    seen: list[tuple[int, ...]] = []
    for layer in find_sparse_layers(model):
        layer.register_forward_hook(lambda _layer, _inputs, code: seen.append(tuple(code.shape[1:])))
    with torch.no_grad():
        assert model(DATA.private.images[:2]).shape == (2, 10)
    assert seen == shapes
    assert [layer.lambd for layer in find_sparse_layers(model)] == list(defense.lambdas)
    assert {tuple(layer.dictionary.shape[2:]) for layer in find_sparse_layers(model)} == {(defense.kernel_size,) * 2}
    assert defense.find_inactivity(model, DATA.auxiliary_val.images[:8]) is None


@pytest.mark.parametrize(("kind", "module"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm), ("none", None)])
def test_normalization(kind: Any, module: type[nn.Module] | None) -> None:
    model = after_an_epoch(SparseCodingArchitecture(**SMALL, normalization=kind)).train()
    found = [type(m) for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert found == ([module] * 2 if module else [])
    images = DATA.private.images[:4]
    with torch.no_grad():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-4) is (kind != "batch")


def test_group_normalization_is_of_each_image_over_all_its_features() -> None:
    norm = next(m for m in built(SparseCodingArchitecture(**SMALL, normalization="group")).modules() if _is_group(m))
    codes = torch.rand(3, 4, 6, 6)
    torch.testing.assert_close(norm(codes), standardize(codes, 1e-5**0.5), atol=1e-5, rtol=1e-5)


def _is_group(module: nn.Module) -> bool:
    return isinstance(module, nn.GroupNorm)


def test_what_goes_beyond_gradients_of_single_images() -> None:
    frozen = {"hebbian": False, "backprop": False, "normalization": "group"}
    assert SparseCodingArchitecture(**frozen).find_unaccounted_access() is None
    assert (
        SparseCodingArchitecture(
            **{**frozen, "features": (4,), "steps": (2,), "hebbian": True}
        ).find_unaccounted_access()
        is None
    )
    for change, asked in [
        ({"hebbian": True}, "set hebbian = false"),
        ({"hebbian": (True, False)}, "set hebbian = false"),
        ({"backprop": True}, "set backprop = false"),
        ({"normalization": "batch"}, "set normalization = 'group'"),
    ]:
        reason = SparseCodingArchitecture(**{**frozen, **change}).find_unaccounted_access()
        assert reason is not None
        assert asked in reason
    everything = SparseCodingArchitecture().find_unaccounted_access() or ""
    assert everything.count("set ") == 3


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_frozen_layers_with_group_normalization_have_gradients_of_single_images() -> None:
    opacus = pytest.importorskip("opacus")
    defense = SparseCodingArchitecture(**SMALL, hebbian=False, backprop=False, normalization="group")
    model = built(defense).train()
    assert opacus.validators.ModuleValidator.validate(model) == []
    images, labels = DATA.private.images[:3], DATA.private.labels[:3]
    wrapped = opacus.GradSampleModule(model)
    F.cross_entropy(wrapped(images), labels).backward()
    samples = {name: p.grad_sample.clone() for name, p in model.named_parameters() if p.requires_grad}
    assert not any("dictionary" in name for name in samples)
    for row in range(3):
        model.zero_grad()
        plain = F.cross_entropy(model(images[row : row + 1]), labels[row : row + 1])
        grads = torch.autograd.grad(plain, [p for p in model.parameters() if p.requires_grad])
        for sample, grad in zip(samples.values(), grads, strict=True):
            torch.testing.assert_close(sample[row], grad, atol=1e-5, rtol=1e-4)


LEARNED = SparseCodingArchitecture(
    **{"features": (6, 8), "steps": (15, 15), "hebbian": False, "backprop": False},
    atoms="pretrained",
    pretrain_epochs=2,
)


@functools.cache
def learned_state() -> dict[str, Tensor]:
    return dict(LEARNED.prepare(context()))


def left_over(layer: SparseCode2d, given: Tensor) -> float:
    """Energy of a layer's code, written out."""
    given, code = standardize(given), layer(given)
    missing = given - F.conv_transpose2d(code, layer.dictionary, padding=layer.kernel_size // 2)
    return float((missing.square().sum() / 2 + layer.lambd * code.sum()) / len(given))  # type: ignore[operator]


@torch.no_grad()
def test_pretrained_atoms_are_in_the_model_and_describe_images_better() -> None:
    state = learned_state()
    assert sorted(state) == ["atoms_1", "atoms_2"]
    model, plain = built(LEARNED, state), built(SparseCodingArchitecture(features=(6, 8), steps=(15, 15)))
    (first, second), (random_first, random_second) = find_sparse_layers(model), find_sparse_layers(plain)
    for number, layer in enumerate((first, second), start=1):
        assert torch.equal(layer.dictionary, state[f"atoms_{number}"])
        torch.testing.assert_close(layer.dictionary.flatten(1).norm(dim=1), torch.ones(layer.features))
    scaled = DATA.auxiliary_val.images[:30] * 2 - 1  # as the stage `input` does
    assert left_over(first, scaled) < 0.8 * left_over(random_first, scaled)
    codes = first(scaled)
    mean, variance = codes.mean((0, 2, 3), keepdim=True), codes.var((0, 2, 3), keepdim=True, unbiased=False)
    normalized = (codes - mean) / (variance + 1e-5).sqrt()
    assert left_over(second, normalized) < 0.95 * left_over(random_second, normalized)
    rest, random_rest = model.stages["stem"].state_dict(), plain.stages["stem"].state_dict()
    assert all(torch.equal(rest[key], value) for key, value in random_rest.items() if "dictionary" not in key)


def test_dictionaries_come_from_attacker_side_images_and_the_seed_alone() -> None:
    quick = SparseCodingArchitecture(**SMALL, atoms="pretrained", pretrain_epochs=1, pretrain_images=60)
    torch.manual_seed(0)
    one = quick.prepare(context())
    torch.manual_seed(1)
    same = quick.prepare(context(private=DATA.test))
    other = quick.prepare(context(seed=4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not any(torch.equal(one[key], other[key]) for key in one)


def test_pretrained_atoms_learn_on_where_that_is_asked_for() -> None:
    state = learned_state()
    for hebbian, moved in ((False, [False, False]), (True, [False, True])):
        defense = SparseCodingArchitecture(
            features=(6, 8), steps=(4, 4), atoms="pretrained", hebbian=hebbian, backprop=False
        )
        model = built(defense, state)
        fit = Fit(epochs=1, batch_size=30, patience=None)
        train(model, defense, state, DATA.private, fit, seed=1, device=CPU, progress=Silent(), label="t")
        assert [not torch.equal(a, state[f"atoms_{n}"]) for n, a in enumerate(atoms(model), start=1)] == moved


@pytest.mark.parametrize("defense", [LEARNED, SparseStandard(atoms="pretrained")])
def test_atoms_that_were_not_learned_are_no_atoms(defense: Defense) -> None:
    with pytest.raises(RecipeError, match="sparse layer 1 was not learned"):
        built(defense)


@torch.no_grad()
def test_sparse_standard_with_stride_and_learned_atoms() -> None:
    defense = SparseStandard(features=8, channels=3, stride=2, atoms="pretrained", pretrain_epochs=2)
    state = defense.prepare(context())
    model, plain = built(defense, state), built(SparseStandard(features=8, channels=3, stride=2))
    assert model.forward_to(DATA.private.images[:2], "codes").shape == (2, 8, 14, 14)
    assert model.forward_to(DATA.private.images[:2], "stem").shape == (2, 3, 14, 14)
    assert torch.equal(find_sparse_layers(model)[0].dictionary, state["atoms_1"])
    energies = [
        float(find_sparse_layers(m)[0].solution(DATA.auxiliary_val.images[:30] * 2 - 1).energy.mean())
        for m in (model, plain)
    ]
    assert energies[0] < 0.9 * energies[1]
    assert SparseStandard().prepare(context()) == {}
