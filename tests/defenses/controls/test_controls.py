"""The controls: plain convolutions, thresholds without competition, averages."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import FixedCode, StagedModel
from sparseguard.data import DATASETS
from sparseguard.defenses.base import Defense
from sparseguard.defenses.controls.conv import ConvControl
from sparseguard.defenses.controls.downsample import Downsample
from sparseguard.defenses.controls.relu_threshold import ReluThreshold
from sparseguard.defenses.sparse_coding._inspect import find_sparse_layers
from sparseguard.defenses.sparse_coding._threshold_layer import ThresholdCode2d
from sparseguard.defenses.sparse_coding.sca import SparseCodingArchitecture
from sparseguard.targets import BACKBONES, Fit, train

DATA = DATASETS["fashion-mini"](private=60).load()
IMAGES = DATA.auxiliary_val.images[:5]


def built(defense: Defense, shape: tuple[int, ...] = (1, 28, 28)) -> StagedModel:
    blueprint = defense.edit_blueprint(BACKBONES["linear-shallow"](width=16).blueprint(10), {})
    return blueprint.build(shape, lambda stage: len(stage)).eval()


def fitted(defense: Defense, model: StagedModel) -> Any:
    fit, device = Fit(epochs=1, batch_size=30, patience=None), torch.device("cpu")
    return train(model, defense, {}, DATA.private, fit, seed=1, device=device, progress=Silent(), label="t")


def standardized(values: Tensor) -> Tensor:
    flat = values.flatten(1)
    return ((flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True, unbiased=False)).view_as(values)


def thresholds(model: StagedModel) -> list[ThresholdCode2d]:
    return [module for module in model.modules() if isinstance(module, ThresholdCode2d)]


@torch.no_grad()
def test_relu_threshold_has_the_atoms_of_sca_and_its_standardization() -> None:
    model, sca = built(ReluThreshold()), built(SparseCodingArchitecture())
    ours, theirs = thresholds(model), find_sparse_layers(sca)
    assert len(ours) == len(theirs) == 2
    assert all(torch.equal(a.dictionary, b.dictionary) for a, b in zip(ours, theirs, strict=True))
    scaled = IMAGES * 2 - 1
    expected = F.relu(F.conv2d(standardized(scaled), theirs[0].dictionary, padding=2) - 0.5)
    torch.testing.assert_close(model.forward_to(IMAGES, "codes"), expected, atol=1e-4, rtol=1e-4)
    drive = theirs[0].solution(scaled).drive
    torch.testing.assert_close(model.forward_to(IMAGES, "codes"), F.relu(drive - 0.5), atol=1e-5, rtol=1e-5)
    assert (model.forward_to(IMAGES, "codes") > 0).float().mean() > 2 * (
        sca.forward_to(IMAGES, "codes") > 0
    ).float().mean()
    assert [name for name in model.state_dict() if "running" in name] == [
        name for name in sca.state_dict() if "running" in name
    ]


@torch.no_grad()
def test_relu_threshold_counts_what_is_active() -> None:
    model = built(ReluThreshold(features=(3, 4)))
    facts = ReluThreshold().facts(model, IMAGES, {})
    counts = [int((model.forward_to(image[None], "codes") > 0).sum()) for image in IMAGES]
    assert facts["threshold_1_active"] == pytest.approx(sum(counts) / 5)
    assert facts["threshold_1_active_share"] == pytest.approx(sum(counts) / 5 / (3 * 28 * 28))
    norm, second = model.stages["stem"][0], model.stages["stem"][1]
    active = (second(norm(model.forward_to(IMAGES, "codes"))) > 0).float().mean()
    assert facts["threshold_2_active_share"] == pytest.approx(float(active), rel=1e-4)


@pytest.mark.parametrize("backprop", [False, True])
def test_atoms_of_relu_threshold_learn_as_switched_and_keep_norm_1(backprop: bool) -> None:
    defense = ReluThreshold(features=(4, 5), backprop=backprop)
    start, model = thresholds(built(defense)), built(defense)
    run = fitted(defense, model)
    first, second = thresholds(model)
    assert torch.equal(first.dictionary, start[0].dictionary)
    assert torch.equal(second.dictionary, start[1].dictionary) is not backprop
    torch.testing.assert_close(second.dictionary.flatten(1).norm(dim=1), torch.ones(5))
    assert run.codes == "computed once"
    assert isinstance(first, FixedCode)
    assert not first.learns
    assert model.list_untrained_stages() == ["input", "codes"]


def test_the_fingerprint_tells_codes_apart() -> None:
    made = {}
    with torch.random.fork_rng():
        for seed, lambd, standardize in product((0, 1), (0.0, 0.5), (False, True)):
            torch.manual_seed(seed)
            layer = ThresholdCode2d(1, 3, 3, lambd=lambd, standardize=standardize)
            made[layer.fingerprint()] = layer
            torch.manual_seed(seed)
            again = ThresholdCode2d(1, 3, 3, lambd=lambd, standardize=standardize)
            assert again.fingerprint() == layer.fingerprint()
    assert len(made) == 8


@pytest.mark.parametrize(("learned", "standardize"), list(product([False, True], repeat=2)))
@torch.no_grad()
def test_conv_control_is_two_convolutions(learned: bool, standardize: bool) -> None:
    defense = ConvControl(features=(4, 5), kernel_size=3, learned=learned, standardize=standardize)
    model = built(defense)
    named = dict(model.named_parameters())
    kernels = [p for name, p in named.items() if name.startswith(("stages.codes", "stages.stem")) and p.ndim == 4]
    biases = [named.get(name.removesuffix("weight") + "bias") for name, p in named.items() if p is kernels[0]]
    assert [tuple(kernel.shape) for kernel in kernels] == [(4, 1, 3, 3), (5, 4, 3, 3)]
    assert [kernel.requires_grad for kernel in kernels] == [learned] * 2
    scaled = IMAGES * 2 - 1
    value = standardized(scaled) if standardize else scaled
    expected = F.relu(F.conv2d(value, kernels[0], biases[0] if learned else None, padding=1))
    torch.testing.assert_close(model.forward_to(IMAGES, "codes"), expected, atol=1e-4, rtol=1e-4)
    assert model.forward_to(IMAGES, "stem").shape == (5, 5, 28, 28)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 2
    if not learned:
        for kernel in kernels:
            torch.testing.assert_close(kernel.flatten(1).norm(dim=1), torch.ones(len(kernel)))
        assert model.list_untrained_stages() == ["input", "codes"]


@pytest.mark.parametrize("learned", [False, True])
def test_filters_learn_as_switched(learned: bool) -> None:
    defense = ConvControl(features=(4, 5), learned=learned)
    start, model = built(defense).state_dict(), built(defense)
    fitted(defense, model)
    for name, value in model.state_dict().items():
        if value.ndim == 4:
            assert torch.equal(value, start[name]) is not learned


@pytest.mark.parametrize("defense", [ConvControl(), ConvControl(learned=False), ReluThreshold()])
def test_controls_notice_that_they_are_gone_or_dead(defense: Defense) -> None:
    model = built(defense)
    assert defense.find_inactivity(model, IMAGES) is None
    for stage in ("stem", "codes"):
        model.stages[stage] = nn.Identity()
    assert "has no" in (defense.find_inactivity(model, IMAGES) or "")
    model = built(defense)
    with torch.no_grad():
        for parameter in model.stages["codes"].parameters():
            parameter.fill_(0)
    assert "1 is dead" in (defense.find_inactivity(model, IMAGES) or "")


@pytest.mark.parametrize("kind", [ConvControl, ReluThreshold])
def test_only_batch_normalization_mixes_images(kind: Any) -> None:
    assert "normalization = 'group'" in (kind().find_unaccounted_access() or "")
    assert kind(normalization="group").find_unaccounted_access() is None


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_gradients_into_threshold_atoms_can_be_had_of_single_images() -> None:
    opacus = pytest.importorskip("opacus")
    model = built(ReluThreshold(features=(3, 4), normalization="group")).train()
    wrapped = opacus.GradSampleModule(model)
    labels = torch.arange(5)
    F.cross_entropy(wrapped(IMAGES), labels).backward()
    atoms = thresholds(model)[1].dictionary
    samples = atoms.grad_sample.clone()
    for row in range(5):
        plain = F.cross_entropy(model(IMAGES[row : row + 1]), labels[row : row + 1])
        torch.testing.assert_close(samples[row], torch.autograd.grad(plain, atoms)[0], atol=1e-5, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3]))
def test_downsample_averages_squares(factor: int, rows: int, columns: int, channels: int) -> None:
    shape = (channels, rows * factor, columns * factor)
    model = built(Downsample(factor=factor), shape)
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(factor))
    averaged = model.forward_to(images, "stem")
    assert averaged.shape == (2, channels, rows, columns)
    for i, j in product(range(rows), range(columns)):
        square = images[:, :, i * factor : (i + 1) * factor, j * factor : (j + 1) * factor]
        torch.testing.assert_close(averaged[:, :, i, j], square.mean((2, 3)) * 2 - 1, atol=1e-5, rtol=1e-5)
    assert Downsample(factor=factor).find_inactivity(model, images) is None


def test_a_factor_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="28x28 do not divide into squares of side 5"):
        built(Downsample(factor=5))
    with pytest.raises(ValueError, match="28x14 do not divide into squares of side 4"):
        built(Downsample(), (3, 28, 14))


def test_downsample_notices_that_it_is_gone() -> None:
    model = built(Downsample())
    model.stages["stem"] = nn.Identity()
    assert "28" in (Downsample().find_inactivity(model, IMAGES) or "")
