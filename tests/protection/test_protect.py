"""A sparse front in a user's model: what it does, what it leaves alone, what it says."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.flop_counter import FlopCounterMode

import sparseguard
from sparseguard.core.errors import DataError, RecipeError
from sparseguard.core.progress import Silent
from sparseguard.model_audit.hooked_model import check_taps, copy_frozen
from sparseguard.model_audit.load_inputs import load_model
from sparseguard.protection import ReconstructionLayer, apply_updates
from sparseguard.protection.insertion import check_arguments
from sparseguard.sparse import SparseCode2d
from sparseguard.targets import state_hash


class Net(nn.Module):
    """A small residual network."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.body = nn.Sequential(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.ReLU()), nn.Dropout(0.5))
        self.twice = nn.ReLU()
        self.unused = nn.Conv2d(3, 3, 1)
        self.fc = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        values = self.twice(self.bn1(self.conv1(images)))
        return self.fc(self.twice(values + self.body(values)).mean((2, 3)))


def net(channels: int = 3) -> Net:
    torch.manual_seed(0)
    return Net(channels)


def images(channels: int = 3, count: int = 4) -> Tensor:
    return torch.rand(count, channels, 9, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("channels", "before"), [(1, "conv1"), (3, "conv1"), (3, "bn1")])
@torch.no_grad()
def test_at_a_tiny_lambda_reconstructions_are_what_came_in(channels: int, before: str) -> None:
    model = net(channels).eval()
    few = images(channels)
    done = sparseguard.protect(
        model, before=before, example=few, features=(40, 48), steps=(50, 50), lambd=1e-5, emit="reconstruction"
    )
    assert torch.allclose(done.model(few), model(few), atol=1e-4)
    coarse = sparseguard.protect(model, before=before, example=few, lambd=1.0, emit="reconstruction")
    assert not torch.allclose(coarse.model(few), model(few), atol=1e-4)
    assert done.changes.reinitialized == ()
    assert done.changes.front_input == done.changes.front_output


def test_a_reconstruction_is_mean_plus_deviation_times_atoms_weighted_by_the_code() -> None:
    layer = SparseCode2d(3, 5, 3, lambd=0.2)
    few = torch.cat([images() * 7 - 2, torch.full((1, 3, 9, 8), 0.4)])
    code, made = layer(few), ReconstructionLayer(layer)(few)
    for image, own, result in zip(few, code, made, strict=True):
        padded = torch.zeros(3, 11, 10)
        for feature, row, column in product(range(5), range(9), range(8)):
            padded[:, row : row + 3, column : column + 3] += own[feature, row, column] * layer.dictionary[feature]
        expected = image.mean() + image.std(correction=0) * padded[:, 1:-1, 1:-1]
        assert torch.allclose(result, expected, atol=1e-5)


def test_codes_go_through_the_pairs_into_a_new_convolution() -> None:
    model, few = net(), images()
    done = sparseguard.protect(model, before="conv1", example=few)
    new = done.model.eval()
    first, norm, second, other = new.conv1.front
    assert [type(part) for part in new.conv1.front] == [SparseCode2d, nn.BatchNorm2d] * 2
    assert (first.features, second.features, second.in_channels, first.steps, second.steps) == (16, 28, 16, 20, 8)
    assert new.conv1.layer.weight.shape == (6, 28, 3, 3)
    assert torch.allclose(new.conv1(few), new.conv1.layer(other(second(norm(first(few))))))
    assert done.changes.reinitialized == ("conv1.layer.weight", "conv1.layer.bias")
    for name, value in model.state_dict().items():
        if not name.startswith("conv1."):
            assert torch.equal(new.state_dict()[name], value)


def test_a_sequence_that_begins_with_a_convolution_takes_codes() -> None:
    done = sparseguard.protect(net(), before="body", example=images(), features=(7,), steps=(3,))
    assert done.changes.reinitialized == ("body.layer.0.0.weight",)
    assert done.changes.front_input == (6, 9, 8)
    assert done.changes.front_output == (7, 9, 8)
    assert done.model(images()).shape == (4, 4)


@pytest.mark.parametrize("emit", ["codes", "reconstruction"])
@pytest.mark.parametrize("training", [True, False])
def test_the_users_model_and_the_random_numbers_stay_as_they_are(emit: str, training: bool) -> None:
    model, few = net().train(training), images()
    model.bn1.eval()
    before, modes, kept = state_hash(model), [module.training for module in model.modules()], few.clone()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    done = sparseguard.protect(model, before="conv1", example=few, emit=emit)
    assert torch.equal(torch.rand(3), expected)
    assert state_hash(model) == before
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for both in (model, done.model) for module in both.modules())
    assert torch.equal(few, kept)
    assert done.model.fc.training is training
    assert not done.model.bn1.training
    assert all(part.training is training for part in done.model.conv1.front.modules())
    assert not {id(weight) for weight in model.parameters()} & {id(weight) for weight in done.model.parameters()}
    done.model(few).sum().backward()
    assert all(weight.grad is None for weight in model.parameters())


def test_what_it_says_can_be_counted() -> None:
    model, few = net(), images()
    done = sparseguard.protect(model, before="conv1", example=few, features=(5,), steps=(4,))
    changes = done.changes
    assert changes.parameters == (
        sum(weight.numel() for weight in model.parameters()),
        sum(weight.numel() for weight in done.model.parameters()),
    )
    assert changes.parameters[1] - changes.parameters[0] == 5 * 3 * 25 + 2 * 5 + (5 - 3) * 6 * 9
    assert changes.operations[0] == 2 * 72 * (6 * 3 * 9 + 6 * 6 * 9) + 2 * 6 * 4
    warm = copy.deepcopy(done.model).eval()
    warm(few)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        warm(few)
    assert 4 * changes.operations[1] == counter.get_total_flops() > 4 * changes.operations[0]
    assert changes.output == (4,)
    for said in ("conv1.layer.weight", f"{changes.parameters[1]:,}", "(3, 9, 8)", "(5, 9, 8)"):
        assert said in str(changes)


@pytest.mark.parametrize("emit", ["codes", "reconstruction"])
@pytest.mark.parametrize(
    ("learn", "gradients", "local"),
    [("both", True, True), ("backprop", True, False), ("local", False, True), ("none", False, False)],
)
def test_it_can_be_fine_tuned(emit: str, learn: str, gradients: bool, local: bool) -> None:
    done = sparseguard.protect(net(), before="conv1", example=images(), emit=emit, learn=learn, lambd=0.1)
    model = done.model.train()
    first, second = [module for module in model.modules() if isinstance(module, SparseCode2d)]
    model(images())  # atoms are given norm 1 on first use
    start = [layer.dictionary.detach().clone() for layer in (first, second)]
    F.cross_entropy(model(images()), torch.arange(4)).backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    wanted = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert wanted - trained == {"unused.weight", "unused.bias"} | ({"conv1.layer.bias"} & (wanted - trained))
    assert (second.dictionary.grad is not None) is gradients
    assert torch.equal(second.dictionary, start[1])
    done.apply_updates()
    assert torch.equal(second.dictionary, start[1]) is not local
    assert torch.equal(first.dictionary, start[0])
    assert second.statistics is None
    apply_updates(nn.Linear(2, 2))


@pytest.mark.parametrize("emit", ["codes", "reconstruction"])
def test_it_can_be_exported_and_audited_as_a_program(emit: str, tmp_path: Path) -> None:
    model = sparseguard.protect(net(), before="conv1", example=images(), emit=emit).model.eval()
    expected = model(images(count=7))
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: torch.export.Dim("n", min=2)},), strict=False)
    torch.testing.assert_close(program.module()(images(count=7)), expected, atol=1e-5, rtol=1e-4)
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = copy_frozen(load_model(str(tmp_path / "net.pt2"), None, progress=Silent()))
    shapes = check_taps(loaded, ["conv1", "logits"], images())
    assert set(shapes) == {"conv1", "logits"}
    torch.testing.assert_close(loaded(images(count=7)), expected, atol=1e-5, rtol=1e-4)


def test_the_same_seed_gives_the_same_front() -> None:
    made = [sparseguard.protect(net(), before="conv1", example=images(), seed=seed).model for seed in (0, 0, 1)]
    hashes = [state_hash(one) for one in made]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("emit", ["codes", "reconstruction"])
def test_the_models_precision_stays(dtype: torch.dtype, emit: str) -> None:
    few = images().to(dtype)
    done = sparseguard.protect(net().to(dtype), before="conv1", example=few, emit=emit)
    assert done.model(few).dtype == dtype


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"before": "conv"}, r"no module 'conv'. Did you mean 'conv1'\? Known: body, body.0, body.0.0, conv1\."),
        ({"before": ""}, "no module ''"),
        ({"before": "unused"}, "runs no module 'unused'"),
        ({"before": "twice", "emit": "reconstruction"}, "runs 2 times"),
        ({"before": "fc", "emit": "reconstruction"}, r"another input than one tensor \(n, c, h, w\).*Possible: .*bn1"),
        ({"before": "bn1"}, "does not begin with a convolution.*reconstruction.*Possible: .*conv1"),
        ({"features": (16,)}, "one entry for each layer"),
        ({"features": (), "steps": ()}, "one entry for each layer"),
        ({"features": (16, 0)}, "sparse layer 2: features must be at least 1"),
        ({"lambd": -1.0}, "sparse layer 1: lambd must be at least 0"),
        ({"kernel_size": 4}, "odd kernel_size"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(given: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        sparseguard.protect(net(), **{"before": "conv1", "example": images(), **given})


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.rand(3, 9, 8), "expected float images"),
        (torch.zeros(2, 3, 9, 8, dtype=torch.uint8), "uint8"),
        (torch.rand(0, 3, 9, 8), "expected float images"),
        (torch.rand(2, 1, 9, 8), "the model does not take"),
        (torch.full((2, 3, 9, 8), torch.nan), "not finite"),
    ],
)
def test_an_example_of_another_kind_is_refused(example: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sparseguard.protect(net(), before="conv1", example=example)


def test_convolutions_that_cannot_be_made_anew_are_refused() -> None:
    grouped = nn.Sequential(nn.Conv2d(6, 6, 3, groups=3))
    with pytest.raises(RecipeError, match="3 groups cannot take 28"):
        sparseguard.protect(grouped, before="0", example=images(6))
    normed = nn.Sequential(weight_norm(nn.Conv2d(3, 6, 3)))
    with pytest.raises(RecipeError, match="does not begin with a convolution"):
        sparseguard.protect(normed, before="0", example=images())


def test_the_public_name_stays_a_function() -> None:
    import sparseguard.protection

    assert sparseguard.protect is sparseguard.protection.protect
    assert callable(sparseguard.protect)


class Shared(nn.Module):
    """A model that runs its convolution by another name than its first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = self.first

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.second(images).mean((2, 3))


@pytest.mark.parametrize("before", ["first", "second"])
@pytest.mark.parametrize("emit", ["codes", "reconstruction"])
def test_a_part_with_two_names_is_behind_the_front_by_both(before: str, emit: str) -> None:
    done = sparseguard.protect(Shared(), before=before, example=images(), emit=emit)
    assert done.model.first is done.model.second
    assert done.changes.operations[1] > done.changes.operations[0]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_compiled_models_and_those_with_kept_results_are_copied() -> None:
    kept = net()
    kept.seen = kept(images())
    nn.utils.weight_norm(kept.fc)
    done = sparseguard.protect(torch.compile(nn.Sequential(kept)), before="0.conv1", example=images())
    assert done.model[0].conv1.layer.in_channels == 28
    assert not dict(done.model.named_parameters()).keys() & {"_orig_mod.0.conv1.weight"}
    with pytest.raises(RecipeError, match="does not begin with a convolution"):
        sparseguard.protect(nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 6, 3))), before="0", example=images())


class Reading(nn.Module):
    """A model that looks at its convolution's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.conv(images.to(self.conv.weight.dtype)).mean((2, 3))


class Locked(nn.Module):
    """A model that cannot be copied."""

    def __deepcopy__(self, memo: dict[int, object]) -> nn.Module:
        raise TypeError("no copies")


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Reading(), RecipeError, "does not run with a front before 'conv'.*no attribute 'weight'"),
        (nn.Sequential(nn.LazyConv2d(4, 3)), DataError, "'0.weight' gets its size in the first call"),
        (Locked(), DataError, "cannot be copied .no copies."),
    ],
)
def test_models_that_cannot_have_a_front_are_refused(model: nn.Module, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sparseguard.protect(model, before="conv", example=images())


def test_a_block_that_is_a_kind_of_sequential_takes_codes() -> None:
    class Block(nn.Sequential):
        pass

    done = sparseguard.protect(nn.Sequential(Block(nn.Conv2d(3, 4, 3))), before="0", example=images())
    assert done.changes.reinitialized == ("0.layer.0.weight", "0.layer.0.bias")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_scripted_models_are_refused() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(RecipeError, match="scripted and traced"):
        sparseguard.protect(scripted, before="0", example=images())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"emit": "code"}, RecipeError, "emit is 'code', expected one of codes, reconstruction"),
        ({"learn": "all"}, RecipeError, "learn is 'all', expected one of both, backprop"),
        ({"features": 4}, RecipeError, "features: expected whole numbers"),
        ({"steps": (3.0, 2)}, RecipeError, "steps: expected whole numbers"),
        ({"example": [1.0]}, DataError, "got a list"),
    ],
)
def test_what_is_of_another_kind_is_refused(change: dict[str, object], error: type[Exception], message: str) -> None:
    given = {"features": (16, 28), "steps": (20, 8), "emit": "codes", "learn": "both", "example": images()}
    check_arguments(**given)
    with pytest.raises(error, match=message):
        check_arguments(**{**given, **change})


def _train(protected, optimizers, steps: int, *, by_hand: bool) -> str:
    model = protected.model.train()
    torch.manual_seed(5)
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        F.cross_entropy(model(images()), torch.arange(4)).backward()
        for optimizer in optimizers:
            optimizer.step()
            if by_hand:
                protected.apply_updates()
    return state_hash(model)


def _optimizers(model: nn.Module, count: int) -> list[torch.optim.Optimizer]:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [torch.optim.Adam(weights[start::count], lr=1e-2) for start in range(count)]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("learn", ["both", "local"])
def test_attach_gives_the_weights_of_updates_by_hand(count: int, learn: str) -> None:
    results = {}
    for kind in ("by hand", "attached", "attached twice", "none"):
        protected = sparseguard.protect(net(), before="conv1", example=images(), learn=learn, lambd=0.1)
        optimizers = _optimizers(protected.model, count)
        if kind.startswith("attached"):
            protected.attach(*optimizers)
        if kind == "attached twice":
            protected.attach(*optimizers)
        results[kind] = _train(protected, optimizers, 3, by_hand=kind == "by hand")
    assert results["attached"] == results["attached twice"] == results["by hand"] != results["none"]


def test_a_removed_handle_ends_the_updates() -> None:
    protected = sparseguard.protect(net(), before="conv1", example=images(), lambd=0.1)
    (optimizer,) = _optimizers(protected.model, 1)
    layer = [module for module in protected.model.modules() if isinstance(module, SparseCode2d)][1]
    with protected.attach(optimizer) as handle:
        _train(protected, [optimizer], 1, by_hand=False)
    updated = layer.dictionary.detach().clone()
    handle.remove()  # a second time does nothing
    _train(protected, [optimizer], 1, by_hand=False)
    assert layer.statistics is not None  # collected, not applied
    protected.attach(optimizer)
    _train(protected, [optimizer], 1, by_hand=False)
    assert layer.statistics is None
    assert not torch.equal(layer.dictionary, updated)
