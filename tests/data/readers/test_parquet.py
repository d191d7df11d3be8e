"""Parquet files as the hub hands them out: read a few rows at a time, as they are, refused with a way out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparseguard.core.errors import DataError
from sparseguard.data import UserImages
from sparseguard.data.preparation.prepared_dataset import read_metadata
from sparseguard.data.readers import parquet
from sparseguard.data.readers.parquet import ParquetSource
from sparseguard.data.readers.sources import open_source
from support.hub import CLASSES, expected, held, rows
from support.image_files import encoded, pets, write_folder

TRAIN, TEST = "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SPARSEGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSEGUARD_DATA", raising=False)


@pytest.fixture
def arrow(datasets) -> Any:
    return pytest.importorskip("pyarrow")


def write(path: Path, table: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.modules["pyarrow.parquet"].write_table(table, path, **options)
    return path


def hub(library: Any, folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    rows(library, 0, 40).to_parquet(folder / TRAIN)
    rows(library, 40, 20).to_parquet(folder / TEST)
    return folder


def plain(arrow: Any, count: int = 60, *, structs: bool = True, **more: Any) -> Any:
    """Images and integer labels without any features."""
    files = [encoded(k, mode="RGB") for k in range(count)]
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    column = arrow.array([{"bytes": file, "path": "/etc/passwd"} for file in files], kind) if structs else files
    return arrow.table({"image": column, "label": [k % 2 for k in range(count)]} | more)


def test_files_as_downloaded_are_read_and_left_alone(datasets, tmp_path) -> None:
    path = hub(datasets, tmp_path / "set")
    write_folder(path, {"README.md": b"x", ".gitattributes": b"x"})
    files = {file: file.stat() for file in path.rglob("*")}
    dataset = UserImages(path=path)
    assert dataset.load().private.classes == tuple(CLASSES)
    assert held(dataset) == expected(60)
    told = read_metadata(dataset.prepare())
    assert told["notes"]["no parquet files by their names"] == [".gitattributes", "README.md"]
    assert sorted(told["checksums"]) == [TEST, TRAIN]
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == {
        file: stat.st_mtime_ns for file, stat in files.items()
    }


def test_one_file_and_folders_of_splits_are_read(datasets, tmp_path) -> None:
    rows(datasets, 0, 60).to_parquet(tmp_path / "all.parquet")
    assert held(UserImages(path=tmp_path / "all.parquet")) == expected(60)
    for split, first in (("train", 0), ("test", 30)):
        (tmp_path / "set" / "default" / split).mkdir(parents=True)
        rows(datasets, first, 30).to_parquet(tmp_path / "set" / "default" / split / "0000.parquet")
    assert held(UserImages(path=tmp_path / "set")) == expected(60)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_any_row_groups_and_any_start_give_the_same_rows(arrow, tmp_path, size) -> None:
    source = ParquetSource(write(tmp_path / "a.parquet", plain(arrow), row_group_size=size))
    items = source.items()
    whole = list(source.stream(items))
    assert [content for _, content in whole] == [encoded(k, mode="RGB") for k in range(60)]
    for start in (1, 6, 7, 20, 59, 60):
        assert list(source.stream(items, start)) == whole[start:]
    assert [source.read(items[k]) for k in (0, 33, 59)] == [whole[k][1] for k in (0, 33, 59)]


@pytest.mark.parametrize("structs", [True, False])
def test_without_features_classes_are_called_by_their_numbers(arrow, tmp_path, structs) -> None:
    table = plain(arrow, structs=structs, weight=[float(k) for k in range(60)])
    dataset = UserImages(path=write(tmp_path / "a.parquet", table))
    assert {(image, CLASSES[int(name)]) for image, name in held(dataset)} == expected(60)
    notes = read_metadata(dataset.prepare())["notes"]
    assert notes["columns without names of classes, which are called by their numbers"] == ["label"]


def test_of_several_integers_those_called_label_are_taken(arrow, tmp_path) -> None:
    named = write(tmp_path / "a.parquet", plain(arrow, id=list(range(60))))
    assert len(held(UserImages(path=named))) == 60
    unclear = write(tmp_path / "b.parquet", plain(arrow, id=list(range(60))).rename_columns(["image", "kind", "id"]))
    with pytest.raises(
        DataError, match=r"'image' \(struct of 'bytes', 'path'\), 'kind' \(int64\), 'id' \(int64\).*save_to_disk"
    ):
        open_source(unclear)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(list(range(60)), "60 classes in 60 rows"), ([3] * 60, "1 classes"), (["a", "b"] * 30, "ClassLabel, or integers")],
)
def test_labels_that_are_no_classes_are_refused(arrow, tmp_path, labels, message) -> None:
    table = plain(arrow).drop_columns("label").append_column("label", arrow.array(labels))
    with pytest.raises(DataError, match=message):
        UserImages(path=write(tmp_path / "a.parquet", table)).load()


def test_rows_without_label_or_image_are_left_out_and_noted(datasets, tmp_path) -> None:
    labels = [k % 2 for k in range(60)]
    labels[7], labels[8] = -1, None
    pictures = [{"bytes": encoded(k, mode="RGB"), "path": None} for k in range(60)]
    pictures[9], pictures[10] = None, {"bytes": None, "path": "/etc/passwd"}
    rows(datasets, 0, 60, kind=labels, picture=pictures).to_parquet(tmp_path / "a.parquet")
    dataset = UserImages(path=tmp_path / "a.parquet")
    assert len(held(dataset)) == 56
    notes = read_metadata(dataset.prepare())["notes"]
    assert notes["without a label"] == ["a.parquet/000000007", "a.parquet/000000008"]
    assert notes["unreadable"] == ["a.parquet/000000009", "a.parquet/000000010"]


def test_missing_files_are_named(datasets, tmp_path) -> None:
    (tmp_path / "set").mkdir()
    rows(datasets, 0, 60).to_parquet(tmp_path / "set" / "train-00001-of-00003.parquet")
    notes = read_metadata(UserImages(path=tmp_path / "set").prepare())["notes"]
    assert notes["parquet files that are missing by the others' names"] == [
        "train-00000-of-00003.parquet",
        "train-00002-of-00003.parquet",
    ]


def test_classes_without_an_image_are_refused_with_a_way_out(datasets, tmp_path) -> None:
    rows(datasets, 0, 60, [*CLASSES, "owl"]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"class 'owl' has no image.*Add the files"):
        UserImages(path=tmp_path / "a.parquet").load()


def test_several_data_sets_in_one_folder_are_refused(datasets, tmp_path) -> None:
    for name in ("large", "small"):
        hub(datasets, tmp_path / "set" / name)
    with pytest.raises(DataError, match=r"several folders \(large/data, small/data\)"):
        open_source(tmp_path / "set")


def test_files_that_number_their_classes_differently_are_refused(datasets, tmp_path) -> None:
    path = hub(datasets, tmp_path / "set")
    rows(datasets, 40, 20, CLASSES[::-1]).to_parquet(path / TEST)
    with pytest.raises(DataError, match=r"train-00000-of-00001\.parquet: columns .*fox, cat.*are.*cat, fox"):
        open_source(path)


def test_names_that_no_terminal_shows_are_refused(datasets, tmp_path) -> None:
    rows(datasets, 0, 9, ["a\x1b[2J", "b"]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="control characters"):
        open_source(tmp_path / "a.parquet")


def test_links_are_followed_within_the_hub_s_cache_only(datasets, tmp_path) -> None:
    loaded = hub(datasets, tmp_path / "set")
    shutil.copytree(loaded, tmp_path / "hub" / "snapshots" / "0123")
    (tmp_path / "hub" / "blobs").mkdir()
    for name in (TRAIN, TEST):
        link = tmp_path / "hub" / "snapshots" / "0123" / name
        link.rename(tmp_path / "hub" / "blobs" / link.name)
        link.symlink_to(Path("../../../blobs") / link.name)
    assert held(UserImages(path=tmp_path / "hub" / "snapshots" / "0123")) == expected(60)
    (loaded / TEST).unlink()
    (loaded / TEST).symlink_to(tmp_path / "hub" / "blobs" / Path(TEST).name)
    dataset = UserImages(path=loaded)
    assert held(dataset) == expected(40)
    assert read_metadata(dataset.prepare())["notes"]["links, not followed"] == [TEST]


def test_class_folders_with_a_parquet_file_stay_class_folders(tmp_path) -> None:
    path = write_folder(tmp_path / "set", pets(30) | {"metadata.parquet": b"x"})
    dataset = UserImages(path=path)
    assert dataset.load().private.classes == ("cat", "dog")
    assert read_metadata(dataset.prepare())["notes"]["no images by their names"] == ["metadata.parquet"]


def test_other_files_are_refused(arrow, tmp_path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(DataError, match="git lfs pull"):
        open_source(path)
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match=r"no parquet file that can be read.*Get it again"):
        open_source(path)
    write(path, plain(arrow).rename_columns(["\x1b[2J", "label"]).drop_columns("label"))
    with pytest.raises(DataError, match=r"'\\x1b\[2J' \(struct"):
        open_source(path)
    write(path, plain(arrow).replace_schema_metadata({"huggingface": "{"}))
    with pytest.raises(DataError, match="features cannot be read"):
        open_source(path)
    write(path, plain(arrow).rename_columns(["image", "image"]))
    with pytest.raises(DataError, match=r"one name \(image, image\)"):
        open_source(path)


def test_what_only_has_the_name_is_told(arrow, tmp_path) -> None:
    (tmp_path / "set" / "train.parquet").mkdir(parents=True)
    with pytest.raises(DataError, match="found no images"):
        open_source(tmp_path / "set").items()
    write(tmp_path / "set" / "B.PARQUET", plain(arrow))
    os.mkfifo(tmp_path / "set" / "c.parquet")
    dataset = UserImages(path=tmp_path / "set")
    assert len(held(dataset)) == 60
    assert read_metadata(dataset.prepare())["notes"]["neither files nor folders"] == ["c.parquet"]


@pytest.mark.slow
def test_nothing_is_written_but_the_cache(datasets, tmp_path) -> None:
    path = hub(datasets, tmp_path / "set")
    made = [sys.executable, "-m", "sparseguard", "data", "prepare", "images", "--from", str(path)]
    changed = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": "", "HF_HOME": "", "HF_DATASETS_CACHE": ""}
    environment = {key: value for key, value in (os.environ | changed).items() if value}
    subprocess.run(made, env=environment, check=True, capture_output=True)
    assert not [file for file in (tmp_path / "home").rglob("*") if "huggingface" in file.name]
    assert sorted(file.name for file in path.rglob("*.*")) == [Path(TEST).name, Path(TRAIN).name]


def test_bombs_are_refused(arrow, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parquet, "BOMB_SIZE", 1 << 16)
    whole = arrow.table({"image": [bytes(1 << 20) for _ in range(40)], "label": [k % 2 for k in range(40)]})
    with pytest.raises(DataError, match="bomb"):
        open_source(write(tmp_path / "a.parquet", whole, compression="gzip", use_dictionary=False))
    repeated = arrow.table({"image": [bytes(1 << 12)] * 9000, "label": [k % 2 for k in range(9000)]})
    source = ParquetSource(write(tmp_path / "b.parquet", repeated, row_group_size=9000))
    with pytest.raises(DataError, match="bomb"):
        list(source.stream(source.items()))


def test_scripts_in_the_folder_are_not_run(datasets, tmp_path) -> None:
    path = hub(datasets, tmp_path / "set")
    for name in ("set.py", "data/data.py", "__init__.py"):
        (path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert held(UserImages(path=path)) == expected(60)
    assert not (tmp_path / "ran").exists()


def test_the_library_is_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    write_folder(tmp_path / "set", {TRAIN: b"PAR1"})
    with pytest.raises(DataError, match=r"pip install \"sparseguard\[huggingface\]\""):
        open_source(tmp_path / "set")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=8))
def test_flipped_bytes_are_survived(datasets, tmp_path, flips) -> None:
    original = tmp_path / "original.parquet"
    if not original.exists():
        rows(datasets, 0, 20).to_parquet(original)
    damaged = bytearray(original.read_bytes())
    for place, mask in flips:
        damaged[-1 - place % len(damaged) if place % 2 else place % len(damaged)] ^= mask
    (tmp_path / "a.parquet").write_bytes(damaged)
    try:
        source = ParquetSource(tmp_path / "a.parquet")
        for _, content in source.stream(source.items()):
            assert isinstance(content, bytes | DataError)
    except DataError:
        pass


def test_memory_is_that_of_a_few_rows(arrow, tmp_path) -> None:
    large = np.random.default_rng(0).bytes(1 << 15)
    table = arrow.table({"image": [large] * 2000, "label": [k % 2 for k in range(2000)]})
    source = ParquetSource(write(tmp_path / "a.parquet", table, use_dictionary=False, write_batch_size=16))
    items = source.items()
    before = arrow.total_allocated_bytes()
    held_most = max(arrow.total_allocated_bytes() for _ in source.stream(items)) - before
    assert held_most < 2000 * len(large) / 4
