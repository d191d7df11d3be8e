"""The audit from the command line, on a model and images the project has never seen."""

import html
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sparseguard.core.errors import DataError
from sparseguard.core.progress import Silent
from sparseguard.data.image_files import read_images
from sparseguard.data.preparation.decode_image import ImageFormat
from support.command_line import in_process

FACTORY = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 70), nn.Linear(70, 2))
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(FACTORY)
    source = np.random.default_rng(0)
    for name, count in (("private", 30), ("held_out", 80)):
        labels = np.arange(count) % 2
        coarse = source.integers(0, 256, (count, 2, 2))
        images = coarse.repeat(4, 1).repeat(4, 2).astype(np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)
    return tmp_path


def run(inputs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        "audit", "--model", f"{inputs / 'mine.py'}:make", "--channels", "1",
        "--private", str(inputs / "private.npz"), "--held-out", str(inputs / "held_out.npz"),
        "--out", str(inputs / "out"),
    ]  # fmt: skip
    return in_process(*command, *words)


def test_an_invertible_layer_is_severe_and_said_so(inputs: Path) -> None:
    done = run(inputs, "--tap", "1", "--json")
    assert done.returncode == 0, done.stderr
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert (verdict["tap"], verdict["severity"]) == ("1", "severe")  # 70 numbers of 64 pixels
    page = (inputs / "out" / "report.html").read_text()
    assert "data:image" not in page
    assert "<strong>1: severe</strong>" in page
    assert all(
        f"<li>{html.escape(sentence)}</li>" in page.replace("&#39;", "&#x27;") for sentence in verdict["sentences"]
    )


@pytest.mark.slow
def test_normalization_and_the_order_of_classes_are_the_models(inputs: Path) -> None:
    accuracies = []
    for classes in ("0,1", "1,0"):
        done = run(inputs, "--tap", "1", "--mean", "0.5", "--std", "0.25", "--classes", classes)
        assert done.returncode == 0, done.stderr
        (path,) = (inputs / "out" / "records").glob("*.json")
        accuracies.append(json.loads(path.read_text())["target"]["accuracy"])
    assert sum(accuracies) == pytest.approx(1)  # two classes, the other way round


def test_one_persons_images_can_be_audited(inputs: Path) -> None:
    with np.load(inputs / "private.npz") as arrays:
        own = arrays["images"][arrays["labels"] == 1]
    np.savez(inputs / "private.npz", images=own[:1], labels=np.array(["1"]))
    with np.load(inputs / "held_out.npz") as arrays:
        np.savez(inputs / "held_out.npz", images=arrays["images"], labels=arrays["labels"].astype(str))
    done = run(inputs, "--tap", "1", "--json")
    assert done.returncode == 0, done.stderr
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert verdict["severity"] == "severe"
    assert "1 private image " in verdict["sentences"][1]


def test_the_tables_of_an_audit_name_the_tap_and_no_training(inputs: Path) -> None:
    words = " ".join(run(inputs, "--tap", "1", "--full").stdout.split())
    assert "'1' and wants each private image back. Tap: 1." in words
    assert "epochs at most" not in words
    assert "1: SEVERE" in words


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--tap", "layer3"), 2, "no module 'layer3'"),
        (("--tap", "1", "--size", "8"), 2, "expected height and width"),
        (("--tap", "1", "--size", "0,8"), 2, "each from 1 to 4096"),
        (("--tap", "1", "--size", "8,,8"), 2, "expected numbers"),
        (("--tap", "1", "--channels", "2"), 2, "expected 1 (grey) or 3 (colour)"),
        (("--tap", "1", "--mean", "0.5"), 2, "1 and 0 values"),
        (("--tap", "1", "--mean", "0.5", "--std", "0"), 2, "above 0"),
        (("--tap", "1", "--mean", "0.5,0.5", "--std", "1,1"), 3, "2 values, images have 1 channels"),
        (("--tap", "1", "--classes", "0,2"), 3, "images of '1', not among 0, 2"),
        (("--tap", "1", "--size", "9,9"), 3, "does not take images"),
    ],
)
def test_mistakes_end_with_their_code(inputs: Path, words: tuple[str, ...], code: int, message: str) -> None:
    done = run(inputs, *words)
    assert done.returncode == code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_images_come_as_they_lie(inputs: Path) -> None:
    read = read_images(inputs / "private.npz", ImageFormat(channels=1), Silent())
    with np.load(inputs / "private.npz") as arrays:
        assert (read.pixels[:, 0].numpy() == arrays["images"]).all()
        assert read.labels.tolist() == arrays["labels"].tolist()
    with pytest.raises(DataError):
        read_images(inputs / "nothing", ImageFormat(), Silent())
