from __future__ import annotations

import copy
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparseguard.core.errors import DataError, RecipeError
from sparseguard.generators.card import fingerprint_images
from sparseguard.generators.external.nvidia import checkout as checkout_module
from sparseguard.generators.external.nvidia.checkout import import_checkout
from sparseguard.generators.external.nvidia.import_pickle import import_official
from sparseguard.generators.external.nvidia.prior import OfficialPrior
from sparseguard.generators.external.nvidia.shims import SHIMS, install_shims
from sparseguard.generators.library import load_prior
from sparseguard.types import ImageSet

# A repository with the interface of NVIDIA's, written for these tests.
CHECKOUT = {
    "legacy.py": """
import pickle
import click, dnnlib

@click.command()
@click.option("--source", required=True)
def main(source):
    pass

def load_network_pkl(file):
    held = pickle.load(file)
    assert all(key in held for key in ("G", "D", "G_ema"))
    return held
""",
    "dnnlib/__init__.py": """
import requests
from distutils.util import strtobool
assert strtobool("yes") and not strtobool("no")

class EasyDict(dict):
    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name)
    def __setattr__(self, name, value):
        self[name] = value
""",
    "torch_utils/__init__.py": "",
    "torch_utils/persistence.py": """
import copy, inspect, sys, types, uuid
import dnnlib

def persistent(cls):
    module = sys.modules[cls.__module__]
    source = getattr(module, "SOURCE", None) or inspect.getsource(module)
    MODULES.setdefault(source, module)
    class Kept(cls):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._kept = (copy.deepcopy(args), copy.deepcopy(kwargs))
        init_args = property(lambda self: self._kept[0])
        init_kwargs = property(lambda self: dnnlib.EasyDict(self._kept[1]))
        def __reduce__(self):
            return from_source, (source, cls.__name__, self.__dict__)
    Kept.__name__ = cls.__name__
    return Kept

MODULES = {}

def from_source(source, name, state):
    if source not in MODULES:
        module = MODULES[source] = types.ModuleType("_imported_module_" + uuid.uuid4().hex)
        module.SOURCE = source
        sys.modules[module.__name__] = module
        exec(source, module.__dict__)
    made = object.__new__(getattr(MODULES[source], name))
    made.__dict__.update(state)
    return made
""",
    "torch_utils/custom_ops.py": "import torch.utils.cpp_extension\n",
    "torch_utils/ops/__init__.py": "",
    "torch_utils/ops/bias_act.py": """
import warnings
import torch
from pkg_resources import parse_version
from .. import custom_ops

assert parse_version(torch.__version__) >= parse_version("1.11.0a")
assert parse_version("1.9") < parse_version("1.11.0a")

def _init():
    raise RuntimeError("compiles a plugin")

def bias_act(x):
    assert not _init()
    warnings.warn("falls back")
    return torch.nn.functional.leaky_relu(x, 0.2)
""",
    "training/__init__.py": "",
    "training/networks_a.py": """
import torch
from torch_utils import persistence

@persistence.persistent
class Generator(torch.nn.Module):
    '''Another generator, with the same arguments and the same weights.'''
    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, synthesis_kwargs={}):
        super().__init__()
        from training import networks_b
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        real = networks_b.Generator(z_dim, c_dim, w_dim, img_resolution, img_channels, synthesis_kwargs)
        self.mapping, self.synthesis, self.num_ws = real.mapping, real.synthesis, real.num_ws
    def forward(self, *args, **kwargs):
        return 1.001 * self.synthesis(self.mapping(*args, truncation_psi=kwargs["truncation_psi"]))
""",
    "training/networks_b.py": """
import torch
from torch_utils import persistence
from torch_utils.ops import bias_act

class Mapping(torch.nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, num_ws, keeps_mean=True):
        super().__init__()
        self.num_ws = num_ws
        self.fc = torch.nn.Linear(z_dim + c_dim, w_dim)
        if keeps_mean:
            self.register_buffer("w_avg", torch.zeros(w_dim))
    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None):
        w = bias_act.bias_act(self.fc(torch.cat([z, c], 1))).unsqueeze(1).repeat(1, self.num_ws, 1)
        if truncation_psi != 1:
            first = w[:, :truncation_cutoff]
            w = torch.cat([self.w_avg.lerp(first, truncation_psi), w[:, first.shape[1]:]], 1)
        return w

class SynthesisBlock(torch.nn.Module):
    def __init__(self, w_dim, channels, size, img_channels):
        super().__init__()
        self.affine = torch.nn.Linear(w_dim, channels)
        self.conv = torch.nn.Conv2d(channels, channels, 3, padding=1)
        self.torgb = torch.nn.Conv2d(channels, img_channels, 1)
        self.register_buffer("noise_const", torch.randn(size, size))
    def forward(self, x, img, w, noise_mode="random", force_fp32=False):
        assert noise_mode == "const" and force_fp32
        x = torch.nn.functional.interpolate(x, scale_factor=2)
        x = torch.tanh(self.conv(x * self.affine(w)[:, :, None, None]) + 0.1 * self.noise_const)
        img = None if img is None else torch.nn.functional.interpolate(img, scale_factor=2)
        rgb = 0.4 * self.torgb(x)
        return x, rgb if img is None else img.add_(rgb)

class Synthesis(torch.nn.Module):
    def __init__(self, w_dim, img_resolution, img_channels, channels=4, names=()):
        super().__init__()
        self.const = torch.nn.Parameter(torch.randn(channels, 4, 4))
        self.sizes = [size for size in (8, 16, 32) if size <= img_resolution]
        self.num_ws = len(self.sizes)
        for size in self.sizes:
            setattr(self, f"b{size}", SynthesisBlock(w_dim, channels, size, img_channels))
    def forward(self, ws, noise_mode="const", force_fp32=True):
        x, img = self.const.expand(len(ws), -1, -1, -1), None
        for size, w in zip(self.sizes, ws.unbind(1)):
            x, img = getattr(self, f"b{size}")(x, img, w, noise_mode=noise_mode, force_fp32=force_fp32)
        return img

@persistence.persistent
class Generator(torch.nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, synthesis_kwargs={}, mapping_kwargs={}):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = Synthesis(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = Mapping(z_dim, c_dim, w_dim, self.num_ws, **mapping_kwargs)
    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, **options):
        w = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(w, **options)

class Spread(torch.nn.Module):
    def __init__(self, group_size):
        super().__init__()
        self.group_size = group_size
    def forward(self, x):
        groups = x.unflatten(0, (-1, self.group_size))
        return x + groups.std(1, correction=0).mean((1, 2, 3)).repeat_interleave(self.group_size).view(-1, 1, 1, 1)

@persistence.persistent
class Discriminator(torch.nn.Module):
    def __init__(self, c_dim, img_resolution, img_channels):
        super().__init__()
        self.c_dim, self.img_resolution, self.img_channels = c_dim, img_resolution, img_channels
        self.spread, self.fc = Spread(2), torch.nn.Linear(img_channels * img_resolution**2 + c_dim, 1)
    def forward(self, img, c, force_fp32=False):
        return self.fc(torch.cat([bias_act.bias_act(self.spread(img)).flatten(1), c], 1))
""",
}
EXPECTED = [(1.0, None), (0.7, None), (0.5, 1)]
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    for name, text in CHECKOUT.items():
        file = tmp_path / "checkout" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "checkout"


def nothing(held: dict[str, Any]) -> None:
    del held


def pickled(
    theirs: Path, c_dim: int = 0, change: Change = nothing, mapping: dict[str, Any] | None = None, **synthesis: Any
) -> dict[str, Tensor]:
    """Write theirs/../net.pkl as the repository would; return what the network makes of latents."""
    torch.manual_seed(4)
    with import_checkout(theirs):
        import_module = importlib.import_module
        easy, networks = import_module("dnnlib").EasyDict, import_module("training.networks_b")
        kwargs = {"mapping_kwargs": easy(mapping)} if mapping else {}
        generator = networks.Generator(6, c_dim, 5, 16, img_channels=3, synthesis_kwargs=easy(synthesis), **kwargs)
        critic = networks.Discriminator(c_dim, img_resolution=16, img_channels=3)
        held = {"G": generator, "D": critic, "G_ema": copy.deepcopy(generator).eval()}
        change(held)
        if not mapping:
            generator.mapping.w_avg.normal_()
            held["G_ema"].mapping.w_avg.copy_(generator.mapping.w_avg)
        (theirs.parent / "net.pkl").write_bytes(import_module("pickle").dumps(held))
        z, c = torch.randn(5, 6), torch.zeros(5, c_dim)
        if c_dim:
            c[:, 1] = 1
        made = {"z": z}
        with torch.no_grad():
            for psi, cutoff in EXPECTED if not mapping else EXPECTED[:1]:
                options = {"truncation_psi": psi, "truncation_cutoff": cutoff, "noise_mode": "const"}
                made[f"{psi} {cutoff}"] = generator(z, c, force_fp32=True, **options)
            for part in critic.modules():
                part.__dict__["group_size"] = 1
            made["logits"] = critic(made["1.0 None"], c)[:, 0]
    return made


def imported(theirs: Path, **options: Any) -> OfficialPrior:
    usual: dict[str, Any] = {"trust_pickle": True, "name": "theirs"}
    usual |= {"pickle": theirs.parent / "net.pkl", "checkout": theirs}
    return import_official(theirs.parent / "prior", **{**usual, **options})


def left_behind(theirs: Path) -> set[str]:
    """What is in the folder besides the checkout and the pickle."""
    return {entry.name for entry in theirs.parent.iterdir()} - {"checkout", "net.pkl"}


@pytest.mark.parametrize("c_dim", [0, 3])
def test_images_and_logits_are_the_networks(theirs: Path, c_dim: int) -> None:
    expected = pickled(theirs, c_dim)
    seen = ImageSet(pixels=torch.zeros(2, 3, 4, 4, dtype=torch.uint8), labels=torch.tensor([0, 0]), classes=("a",))
    imported(theirs, condition=1 if c_dim else None, known=fingerprint_images(seen), trained_on="black images")
    (theirs.parent / "net.pkl").unlink()
    prior = load_prior(theirs.parent / "prior", trust_code=True)
    assert (prior.card.kind, prior.card.shape, prior.card.latent) == ("official", (3, 16, 16), (6,))
    assert (prior.card.num_ws, prior.card.w_dim, prior.has_w) == (2, 5, True)
    assert prior.card.construction["generator"]["module"] == "training.networks_b"  # networks_a makes other images
    assert prior.trained_on is not None
    assert torch.equal(prior.trained_on, fingerprint_images(seen))
    for psi, cutoff in EXPECTED:
        images = prior.synthesis(prior.mapping(expected["z"], truncation=psi, cutoff=cutoff))
        torch.testing.assert_close(images * 2 - 1, expected[f"{psi} {cutoff}"], atol=1e-4, rtol=0)
    real = prior.realism(expected["1.0 None"] / 2 + 0.5)
    assert real is not None
    torch.testing.assert_close(real, expected["logits"], atol=1e-4, rtol=0)
    with pytest.raises(DataError, match="takes images of"):
        prior.realism(torch.zeros(2, 3, 8, 8))


def test_conditions(theirs: Path) -> None:
    pickled(theirs, 3)
    for condition in (-1, 3):
        with pytest.raises(RecipeError, match="classes 0 to 2"):
            imported(theirs, condition=condition)
    zeros = imported(theirs)
    w = zeros.mapping(torch.ones(1, 6))
    net = zeros.generator["generator"].mapping.fc  # type: ignore[index, union-attr]
    made = torch.nn.functional.leaky_relu(net(torch.tensor([[1.0] * 6 + [0.0] * 3])), 0.2)
    torch.testing.assert_close(w[:, 0], made)


def test_no_condition_without_classes(theirs: Path) -> None:
    pickled(theirs)
    with pytest.raises(RecipeError, match="no classes"):
        imported(theirs, condition=0)


def test_layers_gradients_and_copies(theirs: Path) -> None:
    pickled(theirs)
    prior = imported(theirs)
    w = prior.mapping(prior.latents(2, torch.Generator().manual_seed(0)))
    assert len(prior.layers()) == 2
    for layer in range(2):
        kept = prior.features(w, layer)
        assert len(kept) == 2
        torch.testing.assert_close(prior.finish(kept, w, layer), prior.synthesis(w))
    copied = copy.deepcopy(prior.generator)
    assert torch.equal(copied["generator"].synthesis.const, prior.generator["generator"].synthesis.const)  # type: ignore[index, union-attr]
    prior.generator.double()
    start = w[:1].double().requires_grad_()
    assert torch.autograd.gradcheck(prior.synthesis, (start,))


def test_an_untrusted_pickle_is_not_read(theirs: Path) -> None:
    pickled(theirs)

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (theirs.parent / "ran",)

    (theirs.parent / "net.pkl").write_bytes(importlib.import_module("pickle").dumps(Evil()))
    with pytest.raises(RecipeError, match="--trust-pickle"):
        imported(theirs, trust_pickle=False)
    assert left_behind(theirs) == set()
    with pytest.raises(DataError):  # it does run code, and is no network
        imported(theirs)
    assert left_behind(theirs) == {"ran"}


def test_a_network_without_a_mean_w_is_not_truncated(theirs: Path) -> None:
    expected = pickled(theirs, mapping={"keeps_mean": False})
    prior = imported(theirs)
    torch.testing.assert_close(prior.synthesis(prior.mapping(expected["z"])) * 2 - 1, expected["1.0 None"])
    with pytest.raises(RecipeError, match="truncation must be 1"):
        prior.mapping(expected["z"], truncation=0.5)


def lacks_a_key(held: dict[str, Any]) -> None:
    del held["G_ema"].mapping._buffers["w_avg"]
    held["G_ema"].mapping.register_buffer("w_avg", torch.zeros(5), persistent=False)


def has_an_object(held: dict[str, Any]) -> None:
    held["G_ema"]._kept[1]["synthesis_kwargs"]["names"] = [{1, 2}]


def is_white_noise(held: dict[str, Any]) -> None:
    for network in (held["G"], held["G_ema"]):
        network.synthesis.b16.torgb.weight.data.mul_(100)


def is_another(held: dict[str, Any]) -> None:
    held["G_ema"] = torch.nn.Linear(1, 1)


REFUSED: dict[str, tuple[Change, str]] = {
    "lacks a key": (lacks_a_key, "it lacks 'mapping.w_avg'"),
    "has an object": (has_an_object, "no plain value"),
    "is out of range": (is_white_noise, "99 of 100 values lie between"),
    "is another": (is_another, "lacks init_args"),
    "holds nothing": (lambda held: held.clear(), "KeyError|AssertionError"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_networks_that_cannot_be_used(theirs: Path, what: str) -> None:
    change, told = REFUSED[what]

    def last(held: dict[str, Any]) -> None:
        change(held)

    if what in ("lacks a key", "is out of range", "has an object"):
        pickled(theirs, change=last)
    else:
        pickled(theirs)
        repickle(theirs, last)
    path, modules = list(sys.path), set(sys.modules)
    with pytest.raises(DataError, match=told):
        imported(theirs)
    assert left_behind(theirs) == set()
    assert sys.path == path
    assert leftovers(modules) == set()


def repickle(theirs: Path, change: Change) -> None:
    pickle = importlib.import_module("pickle")
    with import_checkout(theirs):
        held = pickle.loads((theirs.parent / "net.pkl").read_bytes())
        change(held)
        (theirs.parent / "net.pkl").write_bytes(pickle.dumps(held))


def leftovers(before: set[str]) -> set[str]:
    ours = {"training", "torch_utils", "dnnlib", "legacy", *SHIMS}
    return {name for name in set(sys.modules) - before if name.split(".")[0] in ours or name.startswith("_imported_")}


def test_a_discriminator_that_cannot_be_built_anew_is_left_out(theirs: Path) -> None:
    def renamed(held: dict[str, Any]) -> None:
        held["D"].fc.register_buffer("more", torch.zeros(1))

    pickled(theirs, change=renamed)
    prior = imported(theirs)
    assert prior.realism(torch.zeros(1, 3, 16, 16)) is None
    assert "it has 'fc.more'" in prior.card.source[1]
    assert load_prior(theirs.parent / "prior", trust_code=True).realism(torch.zeros(1, 3, 16, 16)) is None


def test_changed_missing_and_moved_checkouts(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pickled(theirs)
    imported(theirs)
    folder = theirs.parent / "prior"
    (theirs / "legacy.py").unlink()  # not needed any more
    for name in ("training/networks_b.py", "torch_utils/ops/bias_act.py", "dnnlib/__init__.py"):
        text = (theirs / name).read_text()
        (theirs / name).write_text(text + "\n")
        with pytest.raises(DataError, match=f"{name}: changed since the prior was imported"):
            load_prior(folder, trust_code=True)
        (theirs / name).write_text(text)
    moved = theirs.rename(theirs.parent / "moved")
    with pytest.raises(DataError, match=r"missing.*SPARSEGUARD_CHECKOUT"):
        load_prior(folder, trust_code=True)
    monkeypatch.setenv("SPARSEGUARD_CHECKOUT", str(moved))
    prior = load_prior(folder, trust_code=True)
    torch.testing.assert_close(prior.synthesis(prior.mapping(expected["z"])) * 2 - 1, expected["1.0 None"])


@pytest.mark.parametrize(("key", "value"), [("num_ws", 3), ("w_dim", 4), ("latent", (7,)), ("shape", (3, 8, 8))])
def test_a_card_that_says_something_else(theirs: Path, key: str, value: object) -> None:
    pickled(theirs)
    prior = imported(theirs)
    card = prior.card.model_copy(update={key: value})
    with pytest.raises(DataError, match=f"{key} is"):
        OfficialPrior.load(theirs.parent, card, None, prior.generator.state_dict())


def test_a_card_cannot_name_any_module(theirs: Path) -> None:
    pickled(theirs)
    prior = imported(theirs)
    made = copy.deepcopy(prior.card.construction)
    made["generator"] |= {"module": "os", "name": "system", "args": ["true"]}
    card = prior.card.model_copy(update={"construction": made})
    with pytest.raises(DataError, match="does not say how to build it"):
        OfficialPrior.load(theirs.parent, card, None, {})


def test_something_else_than_a_checkout(theirs: Path) -> None:
    pickled(theirs)
    with pytest.raises(RecipeError, match=r"lacks legacy\.py, dnnlib"):
        imported(theirs, checkout=theirs.parent)
    (theirs.parent / "net.pkl").unlink()
    with pytest.raises(DataError, match="no such file"):
        imported(theirs)


def test_two_checkouts_in_one_process(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = type(sys)("training")
    monkeypatch.setitem(sys.modules, "training", mine)
    path, modules = list(sys.path), set(sys.modules)
    first = pickled(theirs)
    one = imported(theirs)
    other = theirs.parent / "other" / "checkout"
    for name, text in CHECKOUT.items():
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text(text.replace("0.2)", "0.4)"))  # another slope
    second = pickled(other)
    two = imported(other)
    assert not torch.allclose(first["1.0 None"], second["1.0 None"], atol=1e-3)
    for prior, expected in ((one, first), (two, second)):
        torch.testing.assert_close(prior.synthesis(prior.mapping(expected["z"])) * 2 - 1, expected["1.0 None"])
    assert sys.path == path
    assert sys.modules["training"] is mine
    assert leftovers(modules) == set()
    assert not list(theirs.parent.rglob("__pycache__"))


def test_true_modules_are_preferred_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "click.py").write_text("TRUE = 1\n")
    for name in SHIMS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    loaded = type(sys)("pkg_resources")
    monkeypatch.setitem(sys.modules, "pkg_resources", loaded)
    with install_shims():
        assert importlib.import_module("click").TRUE == 1
        assert sys.modules["pkg_resources"] is loaded
    assert sys.modules["pkg_resources"] is loaded
    del sys.modules["click"]


REAL = {
    "stylegan3-t": ("SPARSEGUARD_STYLEGAN3", "networks_stylegan3", {"num_layers": 4, "channel_max": 16}),
    "stylegan3-r": (
        "SPARSEGUARD_STYLEGAN3",
        "networks_stylegan3",
        {"num_layers": 4, "channel_max": 16, "conv_kernel": 1, "use_radial_filters": True},
    ),
    "stylegan2": ("SPARSEGUARD_STYLEGAN3", "networks_stylegan2", {"channel_base": 256}),
    "stylegan2-ada": ("SPARSEGUARD_STYLEGAN2", "networks", {"synthesis_kwargs": {"channel_base": 256}}),
}


@pytest.mark.parametrize("which", REAL)
def test_nvidias_own_networks(which: str, tmp_path: Path) -> None:
    variable, module, options = REAL[which]
    if variable not in os.environ:
        pytest.skip(f"{variable} does not point to a checkout of NVIDIA's repository")
    theirs = Path(os.environ[variable])
    torch.manual_seed(0)
    critics = "networks" if module == "networks" else "networks_stylegan2"
    with checkout_module.convert_errors(which), import_checkout(theirs):
        sizes = {"c_dim": 0, "img_resolution": 32, "img_channels": 3}
        generator = importlib.import_module(f"training.{module}").Generator(z_dim=16, w_dim=16, **sizes, **options)
        critic = importlib.import_module(f"training.{critics}").Discriminator(channel_base=256, **sizes)
        generator.mapping.w_avg.normal_()
        for name, tensor in generator.named_parameters():
            if name.endswith("noise_strength"):
                tensor.data.fill_(0.2)
            if "torgb.weight" in name:
                tensor.data.mul_(0.3)
        held = {"G": generator, "D": critic, "G_ema": generator.eval().requires_grad_(False)}
        (tmp_path / "net.pkl").write_bytes(importlib.import_module("pickle").dumps(held))
        z = torch.randn(3, 16)
        expected = generator(z, None, truncation_psi=0.7, noise_mode="const", force_fp32=True)
    import_official(tmp_path / "prior", pickle=tmp_path / "net.pkl", checkout=theirs, trust_pickle=True, name="theirs")
    prior = load_prior(tmp_path / "prior", trust_code=True)
    w = prior.mapping(z, truncation=0.7)
    torch.testing.assert_close(prior.synthesis(w) * 2 - 1, expected, atol=1e-4, rtol=0)
    for layer in range(len(prior.layers())):
        torch.testing.assert_close(prior.finish(prior.features(w, layer), w, layer), prior.synthesis(w))
    assert len(prior.layers()) in (4, 5)
    assert prior.realism(prior.synthesis(w)) is not None
