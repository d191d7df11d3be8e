"""MNIST and Fashion-MNIST: found where users have them, and refused with a way out where something is wrong."""

from __future__ import annotations

import gzip
import hashlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from sparseguard.core.config import parse
from sparseguard.core.errors import DataError, RecipeError
from sparseguard.data import DATASETS, FashionMnist, Mnist
from sparseguard.data.cache import cache_folder
from sparseguard.data.datasets import _mnist_like as mnist_like

BOTH = pytest.mark.parametrize("dataset", [FashionMnist, Mnist])


@pytest.fixture(autouse=True)
def nothing_elsewhere(tmp_path, monkeypatch):
    """Hide this machine's own data."""
    monkeypatch.delenv("SPARSEGUARD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(FashionMnist, "debian_folder", tmp_path / "debian")


def shades(splits) -> set[int]:
    return {int(shade) for part in splits.by_name().values() for shade in part.pixels[:, 0, 0, 0].unique()}


@BOTH
@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_of_files_is_read_and_both_halves_are_merged(tmp_path, write_set, dataset, compressed):
    splits = dataset(path=write_set(tmp_path / "files", compressed=compressed)).load()
    assert {part: len(images) for part, images in splits.by_name().items()} == {
        "private": 140,
        "auxiliary": 30,
        "auxiliary_val": 6,
        "tuning": 6,
        "test": 18,
    }
    assert splits.private.shape == (1, 28, 28)
    assert (splits.name, splits.layout) == (dataset.name, "sparseguard")
    assert splits.flips_keep_class is (dataset is FashionMnist)


def test_pixels_and_labels_stay_together(tmp_path, write_set, idx):
    folder = write_set(tmp_path / "files", compressed=False)
    for half, count in (("train", 120), ("t10k", 80)):
        labels = np.fromfile(folder / f"{half}-labels-idx1-ubyte", dtype=np.uint8)[8:]
        images = np.repeat(labels, 784).reshape(count, 28, 28)
        (folder / f"{half}-images-idx3-ubyte").write_bytes(idx(images))
    for part in Mnist(path=folder).load().by_name().values():
        assert (part.pixels.flatten(1) == part.labels[:, None]).all()


@BOTH
def test_the_folder_torchvision_downloaded_to_is_found(tmp_path, write_set, dataset):
    write_set(tmp_path / "root" / dataset.torchvision_name / "raw", compressed=False)
    assert len(dataset(path=tmp_path / "root").load().private) == 140


@BOTH
@pytest.mark.parametrize("below", ["", "{name}", "{torchvision}/raw"])
def test_the_environment_variable_is_searched(tmp_path, write_set, monkeypatch, dataset, below):
    write_set(tmp_path / "env" / below.format(name=dataset.name, torchvision=dataset.torchvision_name))
    monkeypatch.setenv("SPARSEGUARD_DATA", str(tmp_path / "env"))
    assert len(dataset().load().private) == 140


def test_the_debian_package_is_found_for_fashion_mnist_only(tmp_path, write_set):
    write_set(tmp_path / "debian")
    assert len(FashionMnist().load().private) == 140
    with pytest.raises(DataError, match="not found"):
        Mnist().load()


@BOTH
def test_the_cache_folder_is_searched(tmp_path, write_set, dataset):
    write_set(tmp_path / "cache" / "sparseguard" / dataset.torchvision_name / "raw")
    assert len(dataset().load().private) == 140


def test_the_cache_folder_is_in_the_home_folder_unless_xdg_says_otherwise(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache" / "sparseguard"
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == tmp_path / ".cache" / "sparseguard"


def test_places_are_searched_in_the_promised_order(tmp_path, write_set, monkeypatch):
    monkeypatch.setenv("SPARSEGUARD_DATA", str(tmp_path / "env"))
    write_set(tmp_path / "cache" / "sparseguard" / "fashion-mnist", shade=3)
    assert shades(FashionMnist().load()) == {3}
    write_set(tmp_path / "debian", shade=2)
    assert shades(FashionMnist().load()) == {2}
    write_set(tmp_path / "env", shade=1)
    assert shades(FashionMnist().load()) == {1}
    write_set(tmp_path / "path", shade=0)
    assert shades(FashionMnist(path=tmp_path / "path").load()) == {0}


@BOTH
def test_only_a_given_path_is_searched(tmp_path, write_set, monkeypatch, dataset):
    monkeypatch.setenv("SPARSEGUARD_DATA", str(write_set(tmp_path / "env")))
    with pytest.raises(DataError, match="not found") as caught:
        dataset(path=tmp_path / "nowhere").load()
    assert str(tmp_path / "nowhere") in str(caught.value)
    assert str(tmp_path / "env") not in str(caught.value)


def test_nothing_found_lists_every_place_and_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEGUARD_DATA", str(tmp_path / "env"))
    with pytest.raises(DataError) as caught:
        FashionMnist().load()
    message = str(caught.value)
    for place in ("env", "env/fashion-mnist", "env/FashionMNIST/raw", "debian", "cache/sparseguard/fashion-mnist"):
        assert f"{tmp_path / place}\n" in message
    for way_out in ("path=", "download=true", "dataset-fashion-mnist"):
        assert way_out in message


@pytest.mark.parametrize("name", mnist_like.FILES)
def test_a_missing_file_is_named(tmp_path, write_set, name):
    folder = write_set(tmp_path / "files")
    (folder / f"{name}.gz").unlink()
    with pytest.raises(DataError) as caught:
        Mnist(path=folder).load()
    assert str(caught.value).startswith(f"{folder}: {name} ")


def test_a_label_out_of_range_is_refused(tmp_path, write_set, idx):
    folder = write_set(tmp_path / "files")
    labels = np.zeros(80, dtype=np.uint8)
    labels[7] = 10
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: label 10 of image 7, expected 0\.\.9"):
        Mnist(path=folder).load()


def test_different_counts_of_images_and_labels_are_refused(tmp_path, write_set, idx):
    folder = write_set(tmp_path / "files")
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(119, dtype=np.uint8))))
    with pytest.raises(DataError, match=r"119 labels, but train-images-idx3-ubyte\.gz beside it 120 images"):
        Mnist(path=folder).load()


def test_images_of_another_size_are_refused(tmp_path, write_set, idx):
    folder = write_set(tmp_path / "files")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((120, 28, 32), dtype=np.uint8))))
    with pytest.raises(DataError, match="28 x 32 images"):
        Mnist(path=folder).load()


def test_a_damaged_file_is_refused_by_name(tmp_path, write_set):
    folder = write_set(tmp_path / "files")
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=path.name):
        Mnist(path=folder).load()


def test_the_other_sets_official_files_are_not_taken_for_this_one(tmp_path, write_set, monkeypatch):
    folder = write_set(tmp_path / "files")
    digest = hashlib.sha256((np.arange(120) % 10).astype(np.uint8).tobytes()).hexdigest()
    monkeypatch.setattr(mnist_like, "KNOWN_LABELS", {digest: "mnist"})
    assert len(Mnist(path=folder).load().private) == 140
    with pytest.raises(DataError, match="labels of mnist, expected fashion-mnist's"):
        FashionMnist(path=folder).load()


@pytest.mark.parametrize("path", ["~nobody-of-this-name/files", "x" * 300])
def test_a_path_that_cannot_be_looked_at_is_refused(path):
    with pytest.raises(DataError, match=path[:20]):
        Mnist(path=path).load()


@pytest.fixture
def torchvision(monkeypatch, write_set):
    """A torchvision whose downloads are small files, made on the spot."""
    calls: list[str] = []

    def downloader(name):
        def download(*, root, download):
            assert download is True
            calls.append(name)
            write_set(Path(root) / name / "raw", compressed=False)

        return download

    datasets = types.SimpleNamespace(FashionMNIST=downloader("FashionMNIST"), MNIST=downloader("MNIST"))
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    return types.SimpleNamespace(calls=calls, datasets=datasets)


@BOTH
def test_a_download_goes_to_the_cache_once(tmp_path, torchvision, dataset):
    for _ in range(2):
        assert len(dataset(download=True).load().private) == 140
    assert torchvision.calls == [dataset.torchvision_name]
    assert (tmp_path / "cache" / "sparseguard" / dataset.torchvision_name / "raw").is_dir()


@BOTH
def test_nothing_is_downloaded_unless_asked_for(torchvision, dataset):
    with pytest.raises(DataError, match="download=true"):
        dataset().load()
    assert torchvision.calls == []


def test_an_interrupted_download_is_taken_up_again(tmp_path, write_set, torchvision):
    folder = write_set(tmp_path / "cache" / "sparseguard" / "MNIST" / "raw")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="missing"):
        Mnist().load()
    assert len(Mnist(download=True).load().private) == 140
    assert torchvision.calls == ["MNIST"]


def test_a_failed_download_is_explained(monkeypatch, torchvision):
    def fail(**_):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fail)
    with pytest.raises(DataError, match=r"failed \(Error downloading train-images-idx3-ubyte\.gz\)"):
        Mnist(download=True).load()


def test_a_missing_torchvision_is_explained(monkeypatch):
    for module in ("torchvision", "torchvision.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=r'pip install "sparseguard\[download\]"'):
        Mnist(download=True).load()


def test_path_and_download_exclude_each_other(tmp_path):
    with pytest.raises(RecipeError, match="exclude each other"):
        parse(Mnist, {"path": str(tmp_path), "download": True}, "[data]")


@pytest.mark.parametrize("name", [name for name, piece in DATASETS.items() if len(piece.classes) == 10])
@pytest.mark.parametrize("part", ["private", "auxiliary", "auxiliary_val", "test"])
def test_sizes_below_one_image_a_class_are_refused(name, part):
    for size in (9, 0, -1, 10.5, "10", True):
        with pytest.raises(RecipeError, match=part):
            parse(DATASETS[name], {part: size}, "[data]")
    assert getattr(parse(DATASETS[name], {part: 10}, "[data]"), part) == 10


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_data_set_says_what_it_is(name):
    dataset = DATASETS[name]
    assert dataset.name == name
    assert len(set(dataset.classes)) == len(dataset.classes)
    assert dataset.revision >= 1
    assert dataset.summary.endswith(".")
    assert dataset.paper_name in {None, "MNIST", "Fashion MNIST", "CIFAR-10", "CelebA", "Medical MNIST"}
