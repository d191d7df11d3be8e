from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparseguard.core.errors import DataError, RecipeError, StoreError
from sparseguard.core.user_code.import_factory import call_factory
from sparseguard.core.user_code.isolated_import import importable_folder
from sparseguard.generators.card import fingerprint_images
from sparseguard.generators.external.import_module import import_module_prior
from sparseguard.generators.external.module_prior import ModulePrior
from sparseguard.generators.library import load_prior
from sparseguard.types import ImageSet

NETS = '''
import torch
from torch import nn
import sibling_of_nets

def dcgan(width=6, last=None, grey=1):
    return nn.Sequential(
        nn.ConvTranspose2d(5, width, 4), nn.BatchNorm2d(width), nn.ReLU(True),
        nn.ConvTranspose2d(width, grey, 4, stride=2, padding=1), last or nn.Tanh())

class Held(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = dcgan()
    def forward(self, z):
        return self.main(z)

class Styled(nn.Module):
    def __init__(self, num_ws=2, flat=False):
        super().__init__()
        self.num_ws, self.flat = num_ws, flat
        self.fc, self.picture = nn.Linear(5, 7), nn.Linear(7, 3 * 64)
    def mapping(self, z):
        w = torch.tanh(self.fc(z)) + 0.3
        return w if self.flat else w.unsqueeze(1).repeat(1, self.num_ws, 1)
    def synthesis(self, w):
        w = w if self.flat else (w * torch.arange(1, self.num_ws + 1).view(1, -1, 1)).sum(1)
        return torch.tanh(self.picture(w)).view(-1, 3, 8, 8)

class Changed(nn.Module):
    """Does something to the images of a DCGAN."""
    def __init__(self, how):
        super().__init__()
        self.inner, self.how = dcgan(), how
    def forward(self, z):
        images = self.inner(z)
        return {
            "mates": lambda: images - images.mean(0),
            "random": lambda: images + torch.randn_like(images),
            "bytes": lambda: (images + 1) * 127.5,
            "nan": lambda: images / 0 * 0,
            "flat": lambda: images.flatten(1),
            "tuple": lambda: (images, images),
        }[self.how]()

def broken():
    raise KeyError("no such thing")

def number():
    return 3
'''
Z = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "nets.py").write_text(NETS)
    (folder / "sibling_of_nets.py").write_text("HELPS = True\n")
    return folder / "nets.py"


def original(nets: Path, function: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(1)
    network = call_factory(f"{nets}:{function}", arguments, None)[0]
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand_like(tensor))
    return network.eval()


def imported(nets: Path, network: nn.Module, function: str, **options: Any) -> ModulePrior:
    weights = nets.parent / "weights.pth"
    torch.save(network.state_dict(), weights)
    usual: dict[str, Any] = {"name": "theirs", "latent": (5,), "output": (-1, 1)}
    return import_module_prior(
        nets.parent.parent / "prior", factory=f"{nets}:{function}", weights=weights, **{**usual, **options}
    )


def test_a_dcgan_is_searched_in_z(nets: Path) -> None:
    network = original(nets, "dcgan", width=4)
    imported(nets, network, "dcgan", latent=(5, 1, 1), arguments={"width": 4}, classes=("a", "b"))
    with pytest.raises(DataError, match=r"runs Python that its prior.json names .*:dcgan.*trust_prior = true"):
        load_prior(nets.parent.parent / "prior")
    prior = load_prior(nets.parent.parent / "prior", trust_code=True)
    assert (prior.card.kind, prior.card.shape, prior.card.num_ws, prior.card.w_dim) == ("module", (1, 8, 8), 0, 0)
    assert not prior.has_w
    assert prior.card.classes == ("a", "b")
    z = prior.latents(3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(prior.synthesis(prior.mapping(z)), network(z) / 2 + 0.5)
        torch.testing.assert_close(prior.mapping(z, truncation=0.5), z / 2)
        for layer in range(5):  # its in-place ReLU would overwrite what the layer before it put out
            torch.testing.assert_close(prior.finish(prior.features(z, layer), z, layer), prior.synthesis(z))
        torch.testing.assert_close(prior.features(z, 1)[0], network[:2](z))
    assert len(prior.layers()) == 5


def test_layers_of_a_network_that_holds_one_sequence(nets: Path) -> None:
    held = original(nets, "Held")
    assert len(imported(nets, held, "Held", latent=(5, 1, 1)).layers()) == 5


def test_safetensors_and_the_fingerprints(nets: Path, tmp_path: Path) -> None:
    network = original(nets, "Styled")
    weights = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(network.state_dict(), weights)
    seen = ImageSet(pixels=torch.zeros(2, 1, 4, 4, dtype=torch.uint8), labels=torch.tensor([0, 0]), classes=("a",))
    import_module_prior(
        tmp_path / "prior",
        factory=f"{nets}:Styled",
        weights=weights,
        name="styled",
        latent=(5,),
        output=(-1, 1),
        trained_on="black images",
        known=fingerprint_images(seen),
    )
    prior = load_prior(tmp_path / "prior", trust_code=True)
    assert prior.trained_on is not None
    assert torch.equal(prior.trained_on, fingerprint_images(seen))
    assert prior.card.trained_on == "black images"
    assert prior.layers() == ()


@pytest.mark.parametrize("flat", [False, True])
def test_w_and_its_mean(nets: Path, flat: bool) -> None:
    network = original(nets, "Styled", flat=flat)
    imported(nets, network, "Styled", arguments={"flat": flat})
    prior = load_prior(nets.parent.parent / "prior", trust_code=True)
    layers = 1 if flat else 2
    assert (prior.card.num_ws, prior.card.w_dim, prior.card.shape) == (layers, 7, (3, 8, 8))
    with torch.no_grad():
        theirs = network.mapping(Z)
        w = prior.mapping(Z)
        assert w.shape == (4, layers, 7)
        torch.testing.assert_close(w, theirs.view(4, layers, 7))
        torch.testing.assert_close(prior.synthesis(w), network.synthesis(theirs) / 2 + 0.5)
        many = network.mapping(torch.randn(200_000, 5, generator=torch.Generator().manual_seed(8)))
    mean = prior.mapping(Z, truncation=0.0)[0, 0]
    error = many.view(-1, layers, 7)[:, 0].std(0) / 100  # of a mean of 10,000
    assert bool(((mean - many.view(-1, layers, 7)[:, 0].mean(0)).abs() < 5 * error).all())


@settings(max_examples=20, deadline=None)
@given(truncation=st.floats(0, 1.5), cutoff=st.none() | st.integers(0, 3))
def test_truncation_is_a_line_to_the_mean(
    tmp_path_factory: pytest.TempPathFactory, truncation: float, cutoff: int | None
) -> None:
    folder = tmp_path_factory.mktemp("truncation")
    (folder / "nets.py").write_text(NETS)
    (folder / "sibling_of_nets.py").touch()
    network = original(folder / "nets.py", "Styled", num_ws=3)
    mean = torch.linspace(-1, 1, 21).view(3, 7)
    prior = _bare(folder, network, mean)
    w, got = network.mapping(Z), prior.mapping(Z, truncation=truncation, cutoff=cutoff)
    for layer in range(3):
        psi = truncation if cutoff is None or layer < cutoff else 1.0
        torch.testing.assert_close(got[:, layer], psi * w[:, layer] + (1 - psi) * mean[layer])


def _bare(folder: Path, network: nn.Module, mean: Tensor) -> ModulePrior:
    from sparseguard.generators.card import PriorCard
    from sparseguard.generators.external.module_prior import MeanAndNetwork

    made = {"factory": "a:b", "arguments": {}, "sources": {}, "output": [-1, 1]}
    card = PriorCard(name="p", kind="module", shape=(3, 8, 8), latent=(5,), num_ws=3, w_dim=7, construction=made)
    return ModulePrior(card, None, MeanAndNetwork(network, mean))


def test_gradient_in_w_is_that_of_differences(nets: Path) -> None:
    prior = imported(nets, original(nets, "Styled"), "Styled")
    prior.generator.double()
    w = prior.mapping(Z.double())[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(prior.synthesis, (w,))


REFUSED = {
    "mates": "without the rest of the batch",
    "random": "must not be random",
    "bytes": "99 of 100 values lie between",
    "nan": "not finite",
    "flat": "must be (n, channels, height, width)",
    "tuple": "returns a tuple",
}


@pytest.mark.parametrize(("how", "told"), REFUSED.items())
def test_generators_that_cannot_be_used(nets: Path, how: str, told: str) -> None:
    network = original(nets, "Changed", how=how)
    with pytest.raises(DataError) as refused:
        imported(nets, network, "Changed", arguments={"how": how}, latent=(5, 1, 1))
    assert told in str(refused.value)
    assert [entry.name for entry in nets.parent.parent.iterdir()] == ["theirs"]


def test_output_range(nets: Path) -> None:
    network = original(nets, "Styled")
    for output in ((0, 1), (0, 255)):
        with pytest.raises(DataError, match="Give the values that mean black and white"):
            imported(nets, network, "Styled", output=output)
    with pytest.raises(RecipeError, match="lowest and the highest"):
        imported(nets, network, "Styled", output=(1, -1))
    assert not (nets.parent.parent / "prior").exists()


def test_weights_of_another_network(nets: Path) -> None:
    network = original(nets, "Styled")
    weights = network.state_dict()

    def refused(held: object) -> str:
        torch.save(held, nets.parent / "weights.pth")
        with pytest.raises(DataError) as told:
            import_module_prior(
                nets.parent.parent / "prior",
                factory=f"{nets}:Styled",
                weights=nets.parent / "weights.pth",
                name="theirs",
                latent=(5,),
                output=(-1, 1),
            )
        return str(told.value)

    assert "lacks 'fc.bias'" in refused({key: value for key, value in weights.items() if key != "fc.bias"})
    assert "has 'more', which the network does not have" in refused({**weights, "more": torch.zeros(1)})
    assert "'fc.bias' is (2,), the network's is (7,)" in refused({**weights, "fc.bias": torch.zeros(2)})
    assert "'epoch'" in refused({"epoch": 3, "state_dict": weights})
    assert "weights_only=True" in refused(nn.Linear(1, 1))  # a whole network, pickled
    (nets.parent / "weights.pth").unlink()
    with pytest.raises(DataError, match=r"weights\.safetensors: cannot be read"):
        import_module_prior(
            nets.parent.parent / "prior",
            factory=f"{nets}:Styled",
            weights=nets.parent / "weights.safetensors",
            name="theirs",
            latent=(5,),
            output=(-1, 1),
        )
    assert not (nets.parent.parent / "prior").exists()


def test_factories_that_cannot_be_used(nets: Path) -> None:
    network = original(nets, "Styled")
    for factory, told in {"Styled": "neither", "nowhere.py:Styled": "no file"}.items():
        with pytest.raises(RecipeError, match=told):
            import_module_prior(
                nets.parent.parent / "prior", factory=factory, weights=nets, name="a", latent=(5,), output=(0, 1)
            )
    for function, told in {"broken": "KeyError", "number": "returned a int", "absent": "AttributeError"}.items():
        with pytest.raises(DataError, match=told):
            imported(nets, network, function)
    with pytest.raises(RecipeError, match="plain values"):
        imported(nets, network, "Styled", arguments={"num_ws": torch.ones(1)})
    with pytest.raises(DataError, match=r"fails for latents of shape \(500, 9\)"):
        imported(nets, network, "Styled", latent=(9,))


def test_changed_or_missing_sources(nets: Path) -> None:
    imported(nets, original(nets, "Styled"), "Styled")
    folder = nets.parent.parent / "prior"
    for file in (nets, nets.parent / "sibling_of_nets.py"):
        text = file.read_text()
        file.write_text(text + "# changed\n")
        with pytest.raises(DataError, match=f"{file.name}: changed since the prior was imported"):
            load_prior(folder, trust_code=True)
        file.unlink()
        with pytest.raises(DataError, match=f"{file.name}: missing"):
            load_prior(folder, trust_code=True)
        file.write_text(text)
    load_prior(folder, trust_code=True)


@pytest.mark.parametrize(("key", "value"), [("num_ws", 3), ("w_dim", 9), ("shape", [3, 8, 9]), ("num_ws", 0)])
def test_a_card_that_says_something_else(nets: Path, key: str, value: object) -> None:
    imported(nets, original(nets, "Styled"), "Styled")
    path = nets.parent.parent / "prior" / "prior.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DataError, match=r"w is|images are|mean_w"):
        load_prior(path.parent, trust_code=True)


def test_an_existing_folder_is_kept(nets: Path) -> None:
    imported(nets, original(nets, "Styled"), "Styled")
    with pytest.raises(StoreError, match="exists already"):
        imported(nets, original(nets, "Styled"), "Styled")


def test_a_factory_in_a_package(tmp_path: Path, nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "their_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(NETS.replace("import sibling_of_nets", ""))
    monkeypatch.syspath_prepend(package.parent)
    network = original(nets, "Styled")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    prior = import_module_prior(
        tmp_path / "prior",
        factory="their_package.nets:Styled",
        weights=tmp_path / "weights.pth",
        name="p",
        latent=(5,),
        output=(-1, 1),
    )
    torch.testing.assert_close(load_prior(tmp_path / "prior", trust_code=True).mapping(Z), prior.mapping(Z))
    (package / "nets.py").write_text(NETS)
    with pytest.raises(DataError, match="changed since"):
        load_prior(tmp_path / "prior", trust_code=True)


def test_nothing_stays_imported(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = type(sys)("nets")
    monkeypatch.setitem(sys.modules, "nets", mine)
    path, modules = list(sys.path), set(sys.modules)
    original(nets, "Styled")
    with pytest.raises(DataError):
        original(nets, "broken")
    assert sys.path == path
    assert sys.modules["nets"] is mine
    assert not {name for name in set(sys.modules) - modules if "nets" in name}
    assert [entry.name for entry in nets.parent.iterdir() if entry.is_dir()] == []  # no bytecode written


def test_modules_of_an_environment_in_the_folder_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = tmp_path / "env" / "site"
    environment.mkdir(parents=True)
    (environment / "of_an_environment.py").touch()
    (tmp_path / "of_the_folder.py").write_text("import of_an_environment\n")
    monkeypatch.syspath_prepend(environment)
    with importable_folder(tmp_path) as sources:
        __import__("of_the_folder")
    assert list(sources) == ["of_the_folder.py"]
    assert "of_an_environment" in sys.modules
    del sys.modules["of_an_environment"]
