"""The set within the package: sound, balanced, and really Fashion-MNIST."""

from __future__ import annotations

import importlib.util
import os
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseguard.core.errors import DataError
from sparseguard.data import FashionMini, FashionMnist
from sparseguard.data.datasets import fashion_mini
from sparseguard.data.readers.idx import read_images, read_labels

SIZES = {"private": 7000, "auxiliary": 1500, "auxiliary_val": 300, "tuning": 300, "test": 900}
PACKAGED = resources.files("sparseguard.data.datasets") / fashion_mini.FILE
SCRIPT = Path(__file__).parents[3] / "scripts" / "make_fashion_mini.py"


@pytest.fixture(scope="module")
def splits():
    return FashionMini().load()


@pytest.fixture(scope="module")
def arrays():
    with PACKAGED.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_fashion_mini", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def official():
    """The official training images and labels."""
    named = os.environ.get("SPARSEGUARD_DATA")
    folders = [Path(named) / "fashion-mnist", Path(named)] if named else []
    for folder in [*folders, FashionMnist.debian_folder]:
        images, labels = (folder / f"train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        if images.is_file() and labels.is_file():
            return read_images(images), read_labels(labels)
    return pytest.skip("no official Fashion-MNIST files in SPARSEGUARD_DATA or Debian's folder")


def rows(images) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.pixels}


def test_parts_have_the_promised_sizes_and_all_classes_equally_often(splits):
    assert {part: len(images) for part, images in splits.by_name().items()} == SIZES
    for part, images in splits.by_name().items():
        assert images.shape == (1, 28, 28)
        assert images.labels.bincount().tolist() == [SIZES[part] // 10] * 10
        assert len(images.labels[:50].unique()) > 5


def test_no_image_is_there_twice(splits, arrays):
    assert len(set().union(*(rows(images) for images in splits.by_name().values()))) == 10_000
    assert len(np.unique(arrays["source"])) == 10_000


def test_the_file_is_small_and_comes_with_its_licence():
    assert len(PACKAGED.read_bytes()) <= 6_000_000
    licence = resources.files("sparseguard.data.datasets").joinpath("fashion_mini.LICENSE").read_text(encoding="utf-8")
    assert "Copyright (c) 2017 Zalando SE" in licence


def test_the_file_needs_no_pickle_and_has_the_promised_arrays(arrays):
    assert {name: (array.dtype.name, array.shape) for name, array in arrays.items()} == {
        "images": ("uint8", (10_000, 28, 28)),
        "labels": ("uint8", (10_000,)),
        "part": ("uint8", (10_000,)),
        "source": ("int32", (10_000,)),
    }


def test_the_paper_layout_parts_all_images_anew(splits):
    paper = FashionMini(layout="paper").load()
    assert {part: len(images) for part, images in paper.by_name().items()} == {
        "private": 7000,
        "auxiliary": 2700,
        "auxiliary_val": 300,
        "tuning": 3000,
        "test": 3000,
    }
    every = set().union(*(rows(images) for images in splits.by_name().values()))
    assert rows(paper.private) | rows(paper.test) == every
    assert rows(paper.test) == rows(paper.tuning) == rows(paper.auxiliary) | rows(paper.auxiliary_val)


def test_sizes_limit_parts_to_nested_balanced_subsets(splits):
    small = FashionMini(private=1000, auxiliary=55, auxiliary_val=10, test=100).load()
    large = FashionMini(private=2000).load()
    assert rows(small.private) < rows(large.private) < rows(splits.private)
    assert small.private.labels.bincount().tolist() == [100] * 10
    assert sorted(small.auxiliary.labels.bincount().tolist()) == [5] * 5 + [6] * 5
    assert [len(images) for images in small.by_name().values()] == [1000, 55, 10, 300, 100]


def test_more_than_there_is_is_refused():
    with pytest.raises(DataError, match=r"fashion-mini: split 'test': asked for 901 images, there are 900"):
        FashionMini(test=901).load()


def test_the_set_is_the_same_on_every_load_whatever_the_seed(splits):
    torch.manual_seed(123)
    assert FashionMini().load().fingerprints() == splits.fingerprints()


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: None])
def test_a_damaged_or_missing_file_is_refused(tmp_path, monkeypatch, damage):
    content = damage(PACKAGED.read_bytes())
    if content is not None:
        (tmp_path / fashion_mini.FILE).write_bytes(content)
    monkeypatch.setattr(fashion_mini.resources, "files", lambda _: tmp_path)
    with pytest.raises(DataError, match="Install sparseguard again"):
        FashionMini().load()


def test_images_and_labels_are_the_official_ones(arrays, official):
    images, labels = official
    assert np.array_equal(arrays["images"], images[arrays["source"]])
    assert np.array_equal(arrays["labels"], labels[arrays["source"]])


def test_the_script_makes_the_packaged_arrays_again(arrays, official, script):
    made = script.draw(*official)
    assert made.keys() == arrays.keys()
    for name, array in made.items():
        assert array.dtype == arrays[name].dtype
        assert np.array_equal(array, arrays[name])


def test_the_script_writes_the_same_bytes_for_the_same_arrays(arrays, script):
    few = {name: array[:50] for name, array in arrays.items()}
    assert script.pack(few) == script.pack(few)


def test_the_script_drops_duplicates_and_images_with_two_labels(script):
    images = np.array([1, 2, 1, 3, 2, 4, 1], dtype=np.uint8)[:, None, None]
    labels = np.array([0, 1, 0, 1, 2, 0, 0], dtype=np.uint8)
    assert script.without_duplicates(images, labels).tolist() == [0, 3, 5]
