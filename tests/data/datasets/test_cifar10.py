"""CIFAR-10: official batches are read without unpickling, and anything else is refused."""

from __future__ import annotations

import pickle
import struct
import sys
import tarfile
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sparseguard.core.config import parse
from sparseguard.core.errors import DataError, RecipeError
from sparseguard.data import Cifar10
from sparseguard.data.datasets.cifar10 import CLASSES
from sparseguard.data.readers import cifar_batches
from sparseguard.data.readers.cifar_batches import read_binary_batch, read_python_batch


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    data = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
    return data, generator.integers(0, 10, count, dtype=np.uint8)


def text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


def published(data: np.ndarray, labels: np.ndarray) -> bytes:
    """Write a batch opcode by opcode as Python 2 and numpy 1 wrote the published ones (pickle protocol 2)."""
    return b"".join(
        (
            b"\x80\x02}q\x01(" + text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03",
            text(b"labels") + b"q\x04]q\x05(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e",
            text(b"data") + b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85",
            text(b"b") + b"\x87Rq\t(K\x01M" + struct.pack("<H", len(data)) + b"M\x00\x0c\x86cnumpy\ndtype\nq\n",
            text(b"u1") + b"K\x00K\x01\x87Rq\x0b(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<I", data.size) + data.tobytes() + b"tb",
            text(b"filenames") + b"q\x0c]q\r(" + b"".join(text(b"a_s_%06d.png" % row) for row in range(len(data))),
            b"eu.",
        )
    )


def test_the_published_form_is_one_that_pickle_reads_as_the_images_written():
    data, labels = drawn(7)
    batch = pickle.loads(published(data, labels), encoding="bytes")
    assert (batch[b"data"] == data).all()
    assert batch[b"labels"] == labels.tolist()


@given(count=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_python_batch_is_read_as_pickle_reads_it(count, seed):
    data, labels = drawn(count, seed)
    pixels, read = read_python_batch(published(data, labels), "data_batch_1")
    for image, row in zip(pixels, data, strict=True):
        for channel in range(3):
            assert (image[:, :, channel].ravel() == row[1024 * channel : 1024 * (channel + 1)]).all()
    assert (read == labels).all()


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_batch_written_again_by_python_3_is_read(protocol):
    data, labels = drawn(5)
    content = pickle.dumps({b"data": data, b"labels": labels.tolist()}, protocol=protocol)
    pixels, read = read_python_batch(content, "data_batch_1")
    assert (pixels.transpose(0, 3, 1, 2).reshape(5, 3072) == data).all()
    assert (read == labels).all()


@pytest.mark.parametrize("count", [1, 6])
def test_both_versions_give_the_same(count):
    data, labels = drawn(count)
    rows = np.concatenate([labels[:, None], data], axis=1).tobytes()
    for first, second in zip(
        read_binary_batch(rows, "a.bin"), read_python_batch(published(data, labels), "a"), strict=True
    ):
        assert (first == second).all()


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["whole", "labels", "data", "beside"])
def test_what_would_run_code_is_refused_and_not_run(protocol, place):
    data, labels = drawn(2)
    batch = {b"data": data, b"labels": labels.tolist()}
    harmful = Harmful() if place == "whole" else {**batch, place.encode(): Harmful()}
    with pytest.raises(DataError, match="not unpickled"):
        read_python_batch(pickle.dumps(harmful, protocol=protocol), "data_batch_1")


@pytest.mark.parametrize(
    ("data", "labels", "said"),
    [
        (np.zeros((2, 3072), np.float32), [0, 1], "unsigned bytes"),
        (np.zeros((2, 3072), np.int8), [0, 1], "unsigned bytes"),
        (np.zeros((2, 3072), np.uint8, order="F"), [0, 1], "C order"),
        (np.zeros((2, 3, 32, 32), np.uint8), [0, 1], "unsigned bytes"),
        (np.zeros((2, 3071), np.uint8), [0, 1], "2 x 3,071"),
        (np.zeros((0, 3072), np.uint8), [], "0 x 3,072"),
        (np.zeros((2, 3072), np.uint8), [0], "2 images but 1 labels"),
        (np.zeros((2, 3072), np.uint8), [0, 10], "label 10 of image 1"),
        (np.zeros((2, 3072), np.uint8), [0, -1], "small integers"),
        (np.zeros((2, 3072), np.uint8), [0, "1"], "small integers"),
        (np.zeros((2, 3072), np.uint8), (0, 1), "no list"),
        (bytes(6144), [0, 1], "no array"),
    ],
)
def test_another_structure_is_refused(data, labels, said):
    content = pickle.dumps({b"data": data, b"labels": labels}, protocol=3)
    with pytest.raises(DataError, match=said):
        read_python_batch(content, "data_batch_1")


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused(content):
    with pytest.raises(DataError):
        read_python_batch(content, "data_batch_1")


SMALL = published(*drawn(2))


@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_a_flipped_byte_gives_images_or_is_refused(place, change):
    content = bytearray(SMALL)
    content[place] ^= change
    try:
        pixels, labels = read_python_batch(bytes(content), "data_batch_1")
    except DataError:
        return
    assert pixels.shape == (2, 32, 32, 3)
    assert labels.max() < 10


@given(st.integers(0, len(SMALL) - 1))
def test_a_truncated_batch_is_refused(length):
    with pytest.raises(DataError):
        read_python_batch(SMALL[:length], "data_batch_1")


def test_shared_values_do_not_grow():
    doubled = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 200 + b"h\x00)R."
    with pytest.raises(DataError, match="no name"):
        read_python_batch(doubled, "data_batch_1")


def test_a_batch_too_large_is_refused_unread(monkeypatch):
    monkeypatch.setattr(cifar_batches, "LARGEST", 100)
    with pytest.raises(DataError, match="at most 100"):
        read_python_batch(SMALL, "data_batch_1")


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes(3074)])
def test_a_binary_batch_needs_whole_rows(content):
    with pytest.raises(DataError, match="multiple of 3,073"):
        read_binary_batch(content, "data_batch_1.bin")


NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def write_batches(folder, version: str, count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Write six batches of one version; return their images and labels, in order."""
    folder.mkdir(parents=True)
    drawn_batches = []
    for seed, name in enumerate(NAMES):
        data, _ = drawn(count, seed)
        labels = (np.arange(count) % 10).astype(np.uint8)
        if version == "py":
            (folder / name).write_bytes(published(data, labels))
        else:
            (folder / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], data], axis=1).tobytes())
        drawn_batches.append((data, labels))
    return np.concatenate([data for data, _ in drawn_batches]), np.concatenate([labels for _, labels in drawn_batches])


def pack(folder, path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)


def rows(splits) -> list[tuple[bytes, int]]:
    return sorted(
        (image.numpy().tobytes(), int(label))
        for part in splits.by_name().values()
        for image, label in zip(part.pixels, part.labels, strict=True)
    )


@pytest.fixture(autouse=True)
def nothing_elsewhere(tmp_path, monkeypatch):
    """Hide this machine's own data and keep its cache clean."""
    monkeypatch.delenv("SPARSEGUARD_DATA", raising=False)
    monkeypatch.setenv("SPARSEGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "downloads"))


@pytest.mark.parametrize("version", ["py", "bin"])
@pytest.mark.parametrize("form", ["folder", "around", "archive", "around the archive"])
def test_official_batches_are_found_and_every_image_is_used_once(tmp_path, version, form):
    folder = tmp_path / "files" / f"cifar-10-batches-{version}"
    data, labels = write_batches(folder, version)
    archive = tmp_path / "packed" / f"cifar-10-{'python' if version == 'py' else 'binary'}.tar.gz"
    archive.parent.mkdir()
    pack(folder, archive)
    path = {"folder": folder, "around": folder.parent, "archive": archive, "around the archive": archive.parent}[form]
    splits = Cifar10(path=path).load()
    assert splits.private.shape == (3, 32, 32)
    assert " ".join(splits.private.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    assert rows(splits) == sorted((image.tobytes(), int(label)) for image, label in zip(data, labels, strict=True))


@pytest.mark.parametrize("version", ["py", "bin"])
def test_a_missing_batch_is_named(tmp_path, version):
    folder = tmp_path / f"cifar-10-batches-{version}"
    write_batches(folder, version)
    (folder / next(name for name in sorted(file.name for file in folder.iterdir()))).unlink()
    with pytest.raises(DataError, match="data_batch_1"):
        Cifar10(path=folder).load()
    pack(folder, tmp_path / "some.tar.gz")
    with pytest.raises(DataError, match="data_batch_1"):
        Cifar10(path=tmp_path / "some.tar.gz").load()


def write_classes(folder, classes) -> None:
    for number, name in enumerate(classes):
        for half, count in (("train", 10), ("test", 4)):
            (folder / half / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (32, 32), (number, index, 0)).save(folder / half / name / f"{index:04d}.png")


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_class_folders_are_read_and_numbered_in_cifars_order(tmp_path, form):
    write_classes(tmp_path / "own", CLASSES)
    path = tmp_path / "own"
    if form == "archive":
        with tarfile.open(tmp_path / "cifar10-jpeg.tar.gz", "w:gz") as archive:
            for half in ("train", "test"):
                archive.add(path / half, arcname=half)
        path = tmp_path / "cifar10-jpeg.tar.gz"
    for part in Cifar10(path=path).load().by_name().values():
        assert (part.pixels[:, 0, 0, 0] == part.labels).all()


def test_folders_of_other_classes_are_refused(tmp_path):
    write_classes(tmp_path / "own", ["cat", "dog", "fish"])
    with pytest.raises(DataError, match="airplane"):
        Cifar10(path=tmp_path / "own").load()


def test_downloading_fetches_the_archive_and_lets_nobody_unpickle_it(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    write_batches(folder, "py")
    asked = []

    def download_url(url, root, filename, md5):
        asked.append((url, md5))
        (tmp_path / "downloads" / "sparseguard").mkdir(parents=True)
        assert root == str(tmp_path / "downloads" / "sparseguard")
        pack(folder, tmp_path / "downloads" / "sparseguard" / filename)

    datasets = types.ModuleType("torchvision.datasets")
    datasets.CIFAR10 = types.SimpleNamespace(url="u", filename="cifar-10-python.tar.gz", tgz_md5="m")
    utils = types.ModuleType("torchvision.datasets.utils")
    utils.download_url = download_url
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    monkeypatch.setitem(sys.modules, "torchvision.datasets.utils", utils)
    with pytest.raises(DataError, match="path="):
        Cifar10().load()
    assert len(Cifar10(download=True).load().private) == 84
    assert asked == [("u", "m")]
    Cifar10(download=True).load()
    assert len(asked) == 1


def test_torchvision_still_has_what_a_download_needs():
    datasets = pytest.importorskip("torchvision.datasets")
    assert datasets.CIFAR10.filename == "cifar-10-python.tar.gz"
    assert callable(datasets.utils.download_url)
    assert {datasets.CIFAR10.url[:8], len(datasets.CIFAR10.tgz_md5)} == {"https://", 32}


def test_path_and_download_exclude_each_other():
    with pytest.raises(RecipeError, match="exclude each other"):
        parse(Cifar10, {"path": "x", "download": True}, "[data]")
