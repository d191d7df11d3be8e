"""Folders that Hugging Face's `datasets` wrote: read as they are, without the network, refused with a way out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sparseguard.core.errors import DataError
from sparseguard.data import UserImages
from sparseguard.data.preparation.prepared_dataset import read_metadata
from sparseguard.data.readers.sources import open_source
from support.hub import CLASSES, expected, held, rows
from support.image_files import encoded, write_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SPARSEGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSEGUARD_DATA", raising=False)


def test_a_dataset_and_a_dict_of_splits_are_read(datasets, tmp_path) -> None:
    rows(datasets, 0, 60).save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=rows(datasets, 0, 40), test=rows(datasets, 40, 20)).save_to_disk(tmp_path / "two")
    for path in (tmp_path / "one", tmp_path / "two"):
        files = sorted(path.rglob("*"))
        dataset = UserImages(path=path)
        assert dataset.load().private.classes == tuple(CLASSES)
        assert held(dataset) == expected(60)
        assert sorted(path.rglob("*")) == files


def test_several_files_selected_rows_and_image_folders_are_read(datasets, tmp_path) -> None:
    shuffled = rows(datasets, 0, 80).select(range(60)).shuffle(seed=1)
    shuffled.save_to_disk(tmp_path / "saved", num_shards=3)
    assert held(UserImages(path=tmp_path / "saved")) == expected(60)
    names = {f"{CLASSES[k % 2]}/{k:03d}.png": encoded(k, mode="RGB") for k in range(60)}
    write_folder(tmp_path / "folder", names)
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "folder"), cache_dir=str(tmp_path / "hub"))
    loaded.save_to_disk(tmp_path / "from-folder")
    assert held(UserImages(path=tmp_path / "from-folder")) == expected(60)


def test_other_columns_and_formats_do_not_matter(datasets, tmp_path) -> None:
    rows(datasets, 0, 60, weight=list(range(60))).with_format("numpy").save_to_disk(tmp_path / "saved")
    assert held(UserImages(path=tmp_path / "saved")) == expected(60)


def test_pixels_given_as_arrays_are_kept(datasets, tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 6), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    columns = {"image": list(pixels), "label": [k % 2 for k in range(60)]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "saved")
    found = held(UserImages(path=tmp_path / "saved", channels=1))
    assert found == {(image.tobytes(), "ab"[k % 2]) for k, image in enumerate(pixels)}


def test_rows_without_label_or_image_are_left_out_and_noted(datasets, tmp_path) -> None:
    labels = [k % 2 for k in range(60)]
    labels[7], labels[8] = -1, None
    pictures = [{"bytes": encoded(k, mode="RGB"), "path": None} for k in range(60)]
    pictures[9] = None
    rows(datasets, 0, 60, kind=labels, picture=pictures).save_to_disk(tmp_path / "saved")
    dataset = UserImages(path=tmp_path / "saved", size=(8, 6))
    assert len(held(dataset)) == 57
    notes = read_metadata(dataset.prepare())["notes"]
    assert notes["without a label"] == ["000000007", "000000008"]
    assert notes["unreadable"] == ["000000009"]


def test_splits_that_number_their_classes_differently_are_refused(datasets, tmp_path) -> None:
    splits = {"train": rows(datasets, 0, 40), "test": rows(datasets, 40, 20, CLASSES[::-1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="splits differ"):
        open_source(tmp_path / "saved")


def test_columns_must_be_one_of_images_and_one_of_labels(datasets, tmp_path) -> None:
    rows(datasets, 0, 9).remove_columns("kind").save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="needs one Image and one ClassLabel column"):
        open_source(tmp_path / "saved")


def test_names_that_no_terminal_shows_are_refused(datasets, tmp_path) -> None:
    rows(datasets, 0, 9, ["a\x1b[2J", "b"]).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="control characters"):
        open_source(tmp_path / "saved")


@pytest.mark.parametrize("damage", ["dataset_info.json", "state.json", "data-00000-of-00001.arrow"])
def test_damaged_folders_are_refused(datasets, tmp_path, damage) -> None:
    rows(datasets, 0, 60).save_to_disk(tmp_path / "saved")
    file = tmp_path / "saved" / damage
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match="Save it again"):
        open_source(tmp_path / "saved")


def test_scripts_in_the_folder_are_not_run(datasets, tmp_path) -> None:
    rows(datasets, 0, 60).save_to_disk(tmp_path / "saved")
    for name in ("saved.py", "dataset.py", "__init__.py"):
        (tmp_path / "saved" / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert held(UserImages(path=tmp_path / "saved")) == expected(60)
    assert not (tmp_path / "ran").exists()


def test_the_library_is_asked_for(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    write_folder(tmp_path / "hf", {"dataset_info.json": b"{}"})
    with pytest.raises(DataError, match=r"pip install \"sparseguard\[huggingface\]\""):
        open_source(tmp_path / "hf")
