"""Backbones: their layers against plain PyTorch, any image size, and torchvision's models taken apart."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseguard.core.config import describe, parse
from sparseguard.core.errors import DataError, RecipeError
from sparseguard.core.staged_model import StagedModel
from sparseguard.defenses import DEFENSES
from sparseguard.pipeline.tasks.train_target import _require_logits
from sparseguard.targets import BACKBONES, state_hash
from sparseguard.targets.backbones._fx_split import Part, require_equal, trace_parts
from sparseguard.targets.backbones.torchvision import expand_short_name

torchvision = pytest.importorskip("torchvision")


def images(*shape: int) -> Tensor:
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(1))


def seed_of(stage: str) -> int:
    return zlib.crc32(stage.encode())


def built(name: str, shape: tuple[int, ...], classes: int = 3, **settings: object) -> StagedModel:
    return BACKBONES[name](**settings).blueprint(classes).build(shape, seed_of)


@pytest.mark.parametrize(
    ("shape", "grid"), [((3, 32, 32), 2), ((1, 28, 28), 1), ((3, 7, 5), 1), ((1, 1, 1), 1), ((3, 80, 80), 5)]
)
@torch.no_grad()
def test_conv_at_any_size(shape: tuple[int, ...], grid: int) -> None:
    model = built("conv", shape)
    assert [model.stages[f"block{number}"][0].out_channels for number in range(1, 6)] == [16, 32, 64, 128, 256]
    assert model.stages["first"][1].in_features == 256 * grid * grid
    assert model.forward_to(images(*shape), "first").shape == model.forward_to(images(*shape), "last").shape == (2, 500)
    assert model(images(*shape)).shape == (2, 3)


@torch.no_grad()
def test_conv_is_the_layers_it_says() -> None:
    model = built("conv", (3, 32, 32))
    weights = model.state_dict()
    values = 2 * images(3, 32, 32) - 1
    for number in range(1, 6):
        values = F.conv2d(
            values, weights[f"stages.block{number}.0.weight"], weights[f"stages.block{number}.0.bias"], 1, 2
        )
        values = (values / (1 + 1e-5) ** 0.5).relu()  # a normalization that has seen nothing: mean 0, variance 1
        values = values if number == 1 else F.max_pool2d(values, 2)
    for name in ("first", "last", "head"):
        values = F.linear(values.flatten(1), weights[f"stages.{name}.1.weight"], weights[f"stages.{name}.1.bias"])
        assert torch.allclose(model.forward_to(images(3, 32, 32), name), values, atol=1e-5)
        values = values.relu()


@pytest.mark.parametrize("channels", [(16, 32, 64, 128, 256), (3, 5)])
@torch.no_grad()
def test_conv_leaks_at_each_of_its_blocks(channels: tuple[int, ...]) -> None:
    blueprint = BACKBONES["conv"](channels=channels).blueprint(3)
    model, few = blueprint.build((3, 32, 32), seed_of), images(3, 32, 32)
    blocks = [tap for tap in blueprint.taps if tap.startswith("block")]
    assert blocks == [f"block{number}" for number in range(1, len(channels) + 1)]
    for tap, width, side in zip(blocks, channels, (32, 16, 8, 4, 2), strict=False):
        leaked = model.forward_to(few, blueprint.resolve_tap(tap))
        assert leaked.shape == (2, width, side, side)
        assert leaked.min() == 0


def test_what_leaves_no_logits_is_refused_when_built() -> None:
    model = built("linear", (1, 8, 8), 3)
    _require_logits(model, (1, 8, 8), 3)
    with pytest.raises(RecipeError, match=r"values of shape \(3,\) where 4 logits"):
        _require_logits(model, (1, 8, 8), 4)


@torch.no_grad()
def test_conv_normalizes_each_image_by_itself_when_told() -> None:
    model = built("conv", (3, 16, 16), normalization="group").train()
    few = images(3, 16, 16)
    assert torch.allclose(model(few)[:1], model(few[:1]), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7)])
@torch.no_grad()
def test_row_linear_sees_one_row_at_a_time(shape: tuple[int, int, int]) -> None:
    model = built("row-linear", shape, width=20)
    weights, few = model.state_dict(), images(*shape)
    rows = []
    for row in (2 * few - 1).reshape(2, -1, shape[2]).unbind(1):
        values = row
        for name in ("first", "hidden", "narrow", "last"):
            prefix = f"stages.{name}.dense"
            values = F.linear(values, weights[f"{prefix}.weight"], weights[f"{prefix}.bias"])
            values = values if name == "last" else values.relu()
        rows.append(values)
    expected = torch.cat(rows, 1)
    assert torch.allclose(model.forward_to(few, "last"), expected, atol=1e-6)
    assert model.forward_to(few, "first").shape == (2, 20 * shape[0] * shape[1])
    head = weights["stages.head.1.weight"], weights["stages.head.1.bias"]
    assert torch.allclose(model(few), F.linear(expected, *head), atol=1e-6)


def test_row_linear_has_the_released_sizes() -> None:
    model = built("row-linear", (1, 28, 28), 10)
    sizes = [tuple(module.weight.shape) for module in model.modules() if isinstance(module, nn.Linear)]
    assert sizes == [(500, 28), (500, 500), (28, 500), (500, 28), (10, 14000)]


def own(name: str, model: StagedModel, classes: int) -> nn.Module:
    """Torchvision's model with the weights that the stages have."""
    whole = torchvision.models.get_model(name, weights=None, num_classes=classes).eval()
    tensors = {}
    for stage, module in model.stages.items():
        for key, value in module.state_dict().items():
            found = [path for path, _ in whole.named_modules() if path.replace(".", "_") == stage]
            tensors[f"{found[0]}.{key}" if found else key] = value
    whole.load_state_dict(tensors)
    return whole


def watched(model: nn.Module, given: Tensor) -> dict[str, Tensor]:
    """What each module of a model puts out, before others write to it."""
    seen = {}

    def see(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[path] = output.clone()

        return hook

    for path, module in model.named_modules():
        module.register_forward_hook(see(path))
    model(given)
    return seen


MODELS = ("resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small")


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_stages_give_what_torchvisions_model_gives(name: str) -> None:
    model = built("torchvision", (3, 64, 64), 7, model=name)
    few = images(3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    given = (few - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    whole = own(name, model, 7)
    assert torch.allclose(model(few), whole(given), rtol=1e-5, atol=1e-5)
    outputs = model.outputs(few)
    for stage, output in outputs.items():
        assert torch.equal(output, model.forward_to(few, stage)), "a later stage wrote to it"
    seen = watched(whole, given)
    taps = BACKBONES["torchvision"](model=name).blueprint(7).taps
    assert {path for path, _ in whole.named_children()} <= set(taps)
    compared = [path for path in taps if path in seen]
    assert len(compared) >= 10
    for path in compared:
        assert torch.allclose(outputs[taps[path]], seen[path], rtol=1e-5, atol=1e-5), path


def test_resnets_taps() -> None:
    blueprint = BACKBONES["torchvision"](model="resnet18").blueprint(4)
    assert blueprint.stage_names()[:4] == ["input", "stem", "conv1", "bn1"]
    assert [blueprint.resolve_tap(name) for name in ("layer1", "layer1.0", "last_hidden", "logits")] == [
        "layer1_1",
        "layer1_0",
        "flatten",
        "fc",
    ]
    with pytest.raises(RecipeError, match=r"no tap 'layer5'. Did you mean 'layer.'\?"):
        blueprint.resolve_tap("layer5")


@torch.no_grad()
def test_grey_is_repeated_or_the_first_convolution_made_anew() -> None:
    grey, name = images(1, 32, 32), "squeezenet1_1"
    repeated, colour = built("torchvision", (1, 32, 32), model=name), built("torchvision", (3, 32, 32), model=name)
    assert state_hash(repeated) == state_hash(colour)
    assert torch.equal(repeated(grey), colour(grey.expand(2, 3, 32, 32)))
    kept = built("torchvision", (1, 32, 32), model=name, grey="convolution")
    assert kept.stages["features_0"].weight.shape == (64, 1, 3, 3)
    assert kept(grey).shape == (2, 3)


@pytest.mark.parametrize("defense", ["sca", "sparse-standard", "bido"])
def test_defenses_act_on_it(defense: str) -> None:
    component, plain = DEFENSES[defense](), BACKBONES["torchvision"](model="squeezenet1_1").blueprint(3)
    model = component.edit_blueprint(plain, {}).build((3, 64, 64), seed_of)
    undefended = plain.build((3, 64, 64), seed_of)
    assert model(images(3, 64, 64)).shape == (2, 3)
    for name in list(undefended.stages)[3:]:
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                model.stages[name].state_dict().values(), undefended.stages[name].state_dict().values(), strict=True
            )
        )


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@torch.no_grad()
def test_weights_from_a_file_but_for_a_head_of_another_size(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(5)
    whole = torchvision.models.squeezenet1_1(num_classes=6).eval()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(whole.state_dict(), path)
    else:
        safetensors.torch.save_file(whole.state_dict(), path)
    same = built("torchvision", (3, 40, 40), 6, model="squeezenet1_1", weights=str(path), normalize="unit")
    few = images(3, 40, 40)
    assert torch.allclose(same(few), whole(2 * few - 1), atol=1e-5)
    other = built("torchvision", (3, 40, 40), 4, model="squeezenet1_1", weights=str(path))
    assert other(few).shape == (2, 4)
    assert torch.equal(other.stages["features_0"].weight, whole.features[0].weight)
    backbone = BACKBONES["torchvision"](model="squeezenet1_1", weights=str(path))
    before = backbone.upstream()
    path.write_bytes(path.read_bytes() + b" ")
    assert backbone.upstream() != before


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for content, message in [
        (torchvision.models.squeezenet1_1().state_dict(), r"another model's weights: .* is not in both"),
        (torchvision.models.resnet34().state_dict(), r"another model's weights"),
        ({"a": 3}, r"a table with .* instead of tensors by name"),
        ([1, 2], "a list instead of tensors by name"),
    ]:
        torch.save(content, path)
        with pytest.raises(DataError, match=message):
            built("torchvision", (3, 32, 32), weights=str(path))
    path.write_bytes(b"no weights")
    with pytest.raises(DataError, match="neither safetensors nor a state dict"):
        built("torchvision", (3, 32, 32), weights=str(path))
    with pytest.raises(DataError, match="cannot be read"):
        built("torchvision", (3, 32, 32), weights=str(tmp_path / "none.pth"))


def test_a_model_that_torchvision_does_not_have() -> None:
    with pytest.raises(RecipeError, match=r"no model 'resnet17'. Did you mean 'resnet"):
        BACKBONES["torchvision"](model="resnet17").blueprint(3)


def test_images_that_are_too_small() -> None:
    with pytest.raises(
        RecipeError, match=r"images of \(3, 8, 8\) do not fit this model: its stage 'features_\d+' is given"
    ):
        built("torchvision", (3, 8, 8), model="squeezenet1_1")


def test_its_short_name_is_written_in_full() -> None:
    full = expand_short_name({"name": "torchvision:vgg11", "weights": "w"})
    assert full == {"name": "torchvision", "model": "vgg11", "weights": "w"}
    assert expand_short_name({"name": "linear"}) == {"name": "linear"}


@pytest.mark.parametrize("name", BACKBONES)
def test_settings_survive_being_written_down(name: str) -> None:
    component = BACKBONES[name]()
    assert parse(BACKBONES[name], describe(component), "backbone") == component


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 2))

    def forward(self, values: Tensor) -> Tensor:
        values = self.a(values)
        return self.c(self.b(values) + values)


class Twice(Branching):
    def forward(self, values: Tensor) -> Tensor:
        return self.c(self.a(self.b(self.a(values))))


class Choosing(Branching):
    def forward(self, values: Tensor) -> Tensor:
        return self.c(self.b(values)) if values.sum() > 0 else self.c(self.a(values))


class ByMode(Branching):
    def forward(self, values: Tensor) -> Tensor:
        return self.c(self.b(self.a(values * (2 if self.training else 1))))


def test_where_two_tensors_are_needed_no_stage_ends() -> None:
    model = Branching().eval()
    parts = trace_parts(model)
    require_equal(model, parts, torch.randn(3, 4))
    assert [part.name for part in parts] == ["a", "add", "c_0", "c_1"]
    assert [part.path for part in parts] == ["a", "", "c.0", "c.1"]
    values = torch.randn(3, 4)
    assert torch.equal(parts[1].extract(model)(values), model.b(values) + values)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Twice(), r"each of the model's weights once. It was found to consist of a, b, a_1, c_0, c_1"),
        (ByMode(), "do not give the model's output. It was found to consist of"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)), "'_1' writes to its input"),
    ],
)
def test_what_is_not_the_model_is_refused(model: nn.Module, message: str) -> None:
    parts: list[Part] = trace_parts(model.eval())
    with pytest.raises(RecipeError, match=message):
        require_equal(model, parts, torch.randn(3, 4))


def test_what_cannot_be_traced_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot be traced"):
        trace_parts(Choosing())
