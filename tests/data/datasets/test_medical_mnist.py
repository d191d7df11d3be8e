"""Medical MNIST: the right files, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparseguard.core.errors import DataError
from sparseguard.data import MedicalMnist
from sparseguard.data.readers.archive import open_images
from support.image_files import encoded, pets, write_folder, write_tar

REAL = Path(os.environ.get("SPARSEGUARD_DATA", "/nowhere")) / "medical-mnist" / "medical-mnist.tar.gz"


@pytest.fixture(autouse=True)
def nothing_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSEGUARD_DATA", raising=False)


def scans(count: int) -> dict[str, bytes]:
    return {
        f"{name}/{k:06d}.jpeg": encoded(100 * n + k, size=(64, 64), kind="JPEG")
        for n, name in enumerate(MedicalMnist.classes)
        for k in range(count)
    }


def test_small_files_of_its_form(tmp_path, monkeypatch) -> None:
    (tmp_path / "data" / "medical-mnist").mkdir(parents=True)
    write_tar(tmp_path / "data" / "medical-mnist" / "medical-mnist.tar.gz", scans(10))
    monkeypatch.setenv("SPARSEGUARD_DATA", str(tmp_path / "data"))
    splits = MedicalMnist().load()
    assert splits.private.shape == (1, 64, 64)
    assert splits.private.classes == tuple(sorted(MedicalMnist.classes))
    assert len(splits.private) == 42
    assert splits.flips_keep_class


def test_other_images_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="unknown: cat, dog"):
        MedicalMnist(path=write_folder(tmp_path / "pets", pets(10))).load()


def test_without_files_it_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"Set path=.*SPARSEGUARD_DATA"):
        MedicalMnist().load()


@pytest.mark.skipif(not REAL.exists(), reason="SPARSEGUARD_DATA has no medical-mnist")
def test_the_real_archive_holds_what_its_owner_says() -> None:
    with open_images(REAL) as source:
        items = source.items()
    assert source.classes == MedicalMnist.classes
    assert [sum(item.label == k for item in items) for k in range(6)] == [10000, 8954, 10000, 10000, 10000, 10000]
    assert source.notes == {}
