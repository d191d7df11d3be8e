"""``sparseguard data`` as a user meets it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sparseguard.cli import app as cli
from sparseguard.core.errors import SparseguardError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSEGUARD_DATA", raising=False)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    path = tmp_path / "pets.zip"
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(40):
            out = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(out, "PNG")
            archive.writestr(f"{('cat', 'dog')[k % 2]}/{k:02d}.png", out.getvalue())
        archive.writestr("cat/empty.png", b"")
    return path


def data(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["data", *map(str, arguments)])
    if isinstance(done.exception, SparseguardError):
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def run_json(*arguments: str | Path) -> Any:
    code, text = data(*arguments, "--json")
    assert code == 0, text
    return json.loads(text)


def test_list_names_every_set() -> None:
    found = {one["name"]: one for one in run_json("list")}
    assert found["images"]["prepared"] == []
    assert found["fashion-mini"]["prepared"] is None
    code, text = data("list")
    assert code == 0
    assert "medical-mnist" in text


def test_prepare_and_info_agree(pets: Path) -> None:
    made = run_json("prepare", "images", "--from", pets, "--set", "channels=1", "--set", "size=[4,4]")
    assert made == run_json("info", "images")
    assert made[0]["shape"] == [1, 4, 4]
    assert made[0]["sizes"] == {"private": 28, "auxiliary": 6, "auxiliary_val": 1, "tuning": 1, "test": 4}
    assert made[0]["notes"] == {
        "empty files": ["cat/empty.png"],
        "classes without an image in split auxiliary_val": ["dog"],
        "classes without an image in split tuning": ["cat"],
    }
    code, text = data("info", "images")
    assert code == 0
    assert "empty files: 1: cat/empty.png" in text
    assert "exact copies of images in an earlier split: 0" in text


def test_sets_that_need_no_preparation_are_described_too() -> None:
    made = run_json("info", "fashion-mini")[0]
    assert made["sizes"]["private"] == 7000
    assert made["duplicates"]["images_across"] == 0
    assert "read directly" in data("prepare", "fashion-mini")[1]


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    assert data("info", "images")[0] == 2
    assert data("prepare", "imags")[0] == 2
    assert data("prepare", "images", "--set", "channels")[0] == 2
    code, text = data("prepare", "images", "--from", tmp_path / "none")
    assert (code, "no such" in text) == (3, True)
