"""``sparseguard prior`` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from sparseguard.cli import app as cli
from sparseguard.core.errors import SparseguardError

SMALL = ["data.private=40", "data.auxiliary=60", "data.auxiliary_val=20", "data.test=20"]
TRAIN = ["--data", "fashion-mini", "--device", "cpu", "--images", "32"]
for change in SMALL:
    TRAIN += ["--set", change]
for change in ("batch_size=4", "width=2", "most=2", "latent=3", "depth=1", "judge_every=16"):
    TRAIN += ["--fit", change]

FACTORY = """
from torch import nn
def dcgan(width=4):
    return nn.Sequential(nn.ConvTranspose2d(3, width, 8), nn.ReLU(), nn.Conv2d(width, 1, 1), nn.Tanh())
"""


def prior(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard output of a command, without a process of its own."""
    done = CliRunner().invoke(cli.app, ["prior", *map(str, arguments)])
    if isinstance(done.exception, SparseguardError):
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def run_json(*arguments: str | Path) -> Any:
    code, text = prior(*arguments, "--json")
    assert code == 0, text
    return json.loads(text)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("priors") / "toy"
    return out, run_json("train", out, *TRAIN, "--classes", "T-shirt/top, Dress")


@pytest.fixture
def factory(tmp_path: Path) -> list[str | Path]:
    """The arguments that import a small generator of z alone."""
    (tmp_path / "nets.py").write_text(FACTORY)
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(3, 5, 8), nn.ReLU(), nn.Conv2d(5, 1, 1), nn.Tanh())
    safetensors.torch.save_file(net.state_dict(), tmp_path / "w.safetensors")
    return [
        "--factory", f"{tmp_path / 'nets.py'}:dcgan", "--weights", tmp_path / "w.safetensors", "--latent", "3,1,1",
        "--output=-1,1", "--argument", "width=5",
    ]  # fmt: skip


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['sparseguard', 'prior', '--help']\n"
        "import sparseguard.cli.app as cli\n"
        "try: cli.main()\nexcept SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("list", "train", "import", "sample"):
        assert command in done.stdout


def test_train(trained: tuple[Path, dict[str, Any]]) -> None:
    out, facts = trained
    assert facts["classes"] == ["T-shirt/top", "Dress"]
    assert facts["name"] == "toy"
    assert facts["shape"] == [1, 28, 28]
    assert [verdict["images"] for verdict in facts["history"]] == [16, 32]
    assert facts["distance"].startswith("FD(pixels")
    assert facts["between_halves"] >= 0
    assert sorted(path.name for path in out.iterdir()) == ["prior.json", "samples.png", "weights.safetensors"]


def test_train_shows_the_distance_over_training(tmp_path: Path) -> None:
    code, text = prior("train", tmp_path / "p", *TRAIN, "--name", "mine")
    assert code == 0
    words = " ".join(text.split())
    for expected in ("mine", "images shown", "real to real", "samples.png"):
        assert expected in words


def test_list(trained: tuple[Path, dict[str, Any]]) -> None:
    found = {entry["source"]: entry for entry in run_json("list", trained[0])}
    from sparseguard.generators import list_shipped_priors

    assert set(found) == {*list_shipped_priors(), str(trained[0])}
    entry = found[str(trained[0])]
    assert entry["fingerprints"] == 12
    assert (entry["num_ws"], entry["w_dim"], entry["kind"]) == (8, 3, "style")
    size = sum(path.stat().st_size for path in trained[0].iterdir())
    assert entry["megabytes"] == pytest.approx(size / 1e6, abs=1e-3)
    assert "12 images of auxiliary of fashion-mini" in entry["trained_on"]
    code, text = prior("list", trained[0])
    assert code == 0
    assert "12 images of auxiliary" in text


def test_sample(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    pictures = []
    for seed in ("0", "0", "1"):
        facts = run_json("sample", trained[0], "--out", tmp_path / "s.png", "--count", "5", "--seed", seed)
        assert facts["count"] == 5
        pictures.append((tmp_path / "s.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    assert Image.open(BytesIO(pictures[0])).size == (3 * 86 + 2, 2 * 86 + 2)
    beside = (trained[0] / "samples.png").read_bytes()
    assert prior("sample", trained[0], "--out", tmp_path / "s.png")[0] == 0
    assert (tmp_path / "s.png").read_bytes() == beside
    assert [path.name for path in tmp_path.iterdir()] == ["s.png"]


def test_import_of_a_module(factory: list[str | Path], tmp_path: Path) -> None:
    out = tmp_path / "priors" / "dcgan"
    entry = run_json(
        "import", out, *factory, "--classes", "Bag,Coat", "--trained-on", "bags and coats",
        "--fingerprints-of", "fashion-mini", "--set", "data.auxiliary=60",
    )  # fmt: skip
    assert (entry["kind"], entry["name"], entry["num_ws"]) == ("module", "dcgan", 0)
    assert (entry["classes"], entry["trained_on"], entry["fingerprints"]) == (["Bag", "Coat"], "bags and coats", 60)
    assert sorted(path.name for path in out.iterdir()) == ["prior.json", "samples.png", "weights.safetensors"]
    assert run_json("sample", out, "--trust-code", "--out", tmp_path / "s.png")["prior"] == "dcgan"
    assert prior("import", out, *factory)[0] == 4
    entry = run_json("import", tmp_path / "priors" / "second", *factory, "--name", "other")
    assert (entry["name"], entry["classes"], entry["fingerprints"]) == ("other", None, None)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["train", "OUT"], 2),
        (["train", "OUT", "--data", "cifar"], 2),
        (["train", "OUT", "--data", "fashion-mini", "--classes", "Dres"], 2),
        (["train", "OUT", "--data", "fashion-mini", "--classes", "Dress,,"], 2),
        (["train", "OUT", "--data", "fashion-mini", "--images", "0"], 2),
        (["train", "OUT", "--data", "fashion-mini", "--fit", "widht=3"], 2),
        (["train", "OUT", "--data", "fashion-mini", "--fit", "batch_size=9999"], 2),
        (["train", "OUT", "--data", "fashion-mini", "--set", "fit.images=3"], 2),
        (["train", "OUT", "--data", "fashion-mini", "--device", "quantum"], 2),
        (["train", "OUT", "--data", "mnist", "--set", "data.path=/nowhere"], 3),
        (["train", "OUT", "--data", "fashion-mini", "--set", "data.auxiliary=99999"], 3),
        (["train", "THERE", "--data", "fashion-mini"], 4),
        (["train", "THERE/file/p", "--data", "fashion-mini"], 4),
        (["list", "nowhere"], 3),
        (["sample", "nowhere", "--out", "OUT.png"], 3),
        (["sample", "nowhere", "--out", "OUT.jpg"], 2),
        (["sample", "nowhere"], 2),
        (["sample", "nowhere", "--out", "OUT.png", "--count", "0"], 2),
        (["sample", "nowhere", "--out", "OUT.png", "--truncation", "nan"], 2),
        (["import", "OUT"], 2),
        (["import", "OUT", "--official", "x.pkl"], 2),
        (["import", "OUT", "--official", "x.pkl", "--checkout", "nowhere"], 2),
        (["import", "OUT", "--official", "x.pkl", "--checkout", "nowhere", "--trust-pickle"], 2),
        (["import", "OUT", "--official", "x.pkl", "--checkout", "nowhere", "--factory", "a.py:b"], 2),
        (["import", "OUT", "--factory", "a.py:b", "--weights", "w", "--latent", "3"], 2),
        (["import", "OUT", "--factory", "a.py:b", "--weights", "w", "--latent", "x", "--output=-1,1"], 2),
        (["import", "OUT", "--factory", "a.py:b", "--weights", "w", "--latent", "0", "--output=-1,1"], 2),
        (["import", "OUT", "--factory", "a.py:b", "--weights", "w", "--latent", "3", "--output=1"], 2),
        (["import", "OUT", "--factory", "a.py:b", "--weights", "w", "--latent", "3", "--output=1,nan"], 2),
        (["import", "OUT", "--factory", "a.py:b", "--weights", "w", "--latent", "3", "--output=-1,1"], 2),
        (["import", "OUT", "--factory", "a.py:b", "--weights", "w", "--latent", "3", "--trust-pickle"], 2),
        (["import", "OUT", "--set", "data.path=x", "--official", "x", "--checkout", "y"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_what_the_user_can_mend_has_its_code_and_leaves_nothing(
    arguments: list[str], code: int, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "file").write_text("kept")
    words = [word.replace("OUT", str(tmp_path / "out")).replace("THERE", str(there)) for word in arguments]
    found, message = prior(*words)
    assert found == code, message
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there"]


def test_reading_a_pickle_must_be_asked_for(tmp_path: Path) -> None:
    code, message = prior("import", tmp_path / "out", "--official", "x.pkl", "--checkout", tmp_path)
    assert code == 2
    assert "--trust-pickle" in message


def test_an_error_is_one_message_of_a_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sparseguard", "prior", "sample", "nowhere", "--out", str(tmp_path / "x.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "no prior 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr
