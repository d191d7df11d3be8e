"""Preparing: whole or absent, resumable, bounded memory, duplicates, parts that are views."""

from __future__ import annotations

import errno
import json
import re
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from PIL import Image

from sparseguard.core.errors import DataError, StoreError
from sparseguard.core.progress import Silent
from sparseguard.data.preparation import assemble, chunk_store, parallel_decode
from sparseguard.data.preparation import prepared_dataset as prepared
from sparseguard.data.preparation.decode_image import ImageFormat, decode
from sparseguard.data.preparation.duplicates import count_split_copies
from sparseguard.data.preparation.pipeline import prepare
from sparseguard.data.readers.archive import open_images
from sparseguard.data.readers.base import Item, Source
from sparseguard.data.split_ranges import assign_splits
from sparseguard.data.splits import SPLIT_PERCENTAGES, partition
from sparseguard.types import ImageSet, Splits
from support.image_files import encoded, pets, saved, write_folder, write_tar, write_zip

LOOK = ImageFormat(size=(8, 6), channels=1)


class Generated(Source):
    """Images that are made when they are read."""

    def __init__(self, count: int, size: tuple[int, int] = (8, 6), groups: int = 0) -> None:
        super().__init__()
        self.classes = ("even", "odd")
        self._count, self._size, self._groups = count, size, groups

    def items(self) -> list[Item]:
        group = (lambda k: f"{k % self._groups}") if self._groups else (lambda _: "")
        return [Item(name=f"{k:06d}", label=k % 2, group=group(k)) for k in range(self._count)]

    def read(self, item: Item) -> np.ndarray:
        pixels = np.zeros(self._size, dtype=np.uint8)
        pixels.reshape(-1)[:4] = np.frombuffer(np.int32(int(item.name)).tobytes(), dtype=np.uint8)
        return pixels

    def checksums(self) -> dict[str, str]:
        return {"generated": f"{self._count} {self._size}"}


def made(source: Source, folder: Path, look: ImageFormat = LOOK, layout: str = "sparseguard", **more) -> Splits:
    with source:
        prepare(source, folder, look, name="set", layout=layout, flips_keep_class=True, **more)
    return prepared.read_prepared(folder)


def flat(splits: Splits) -> dict[str, tuple[bytes, list[int]]]:
    return {
        part: (images.pixels.numpy().tobytes(), images.labels.tolist()) for part, images in splits.by_name().items()
    }


@pytest.mark.parametrize("layout", ["sparseguard", "paper"])
def test_the_parts_are_those_of_partition_whatever_the_packing(tmp_path: Path, layout: str) -> None:
    files = pets(40)
    names = sorted(files)
    pixels = np.stack([decode(files[name], LOOK, name=name).pixels for name in names]).transpose(0, 3, 1, 2)
    whole = ImageSet(
        pixels=torch.from_numpy(pixels.copy()),
        labels=torch.tensor([int(name.startswith("dog")) for name in names]),
        classes=("cat", "dog"),
    )
    expected = partition(whole, name="set", layout=layout, flips_keep_class=True)
    shuffled = {name: files[name] for name in sorted(files, key=lambda name: files[name])}
    for write in (write_folder, write_tar, write_zip):
        path = write(tmp_path / write.__name__, shuffled)
        splits = made(open_images(path), tmp_path / f"{write.__name__}-prepared", layout=layout)
        assert flat(splits) == flat(expected)
        assert splits.fingerprints() == expected.fingerprints()
        told = prepared.read_metadata(tmp_path / f"{write.__name__}-prepared")
        listed = json.loads((tmp_path / f"{write.__name__}-prepared" / "names.json").read_text())
        assert sorted(listed) == names
        assert told["notes"] == {}
        assert len(told["checksums"]) == 1


def test_parts_are_views_of_the_file(tmp_path: Path) -> None:
    splits = made(Generated(200), tmp_path / "set")
    bases = {images.pixels.untyped_storage().data_ptr() for images in splits.by_name().values()}
    start = min(bases)
    size = (tmp_path / "set" / "images.npy").stat().st_size
    assert all(0 <= base - start < size for base in bases)
    maps = Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else str(tmp_path / "set")
    assert str(tmp_path / "set") in maps


def test_all_is_noted_and_nothing_dropped_silently(tmp_path: Path) -> None:
    files = pets(30) | {
        "cat/broken.png": b"hello",
        "cat/cut.png": encoded(3)[:-50],
        "dog/other.jpg": encoded(999),
        "dog/empty.png": b"",
    }
    splits = made(open_images(write_tar(tmp_path / "set.tar.gz", files)), tmp_path / "set")
    told = prepared.read_metadata(tmp_path / "set")
    assert told["notes"] == {
        "unreadable": ["cat/broken.png", "cat/cut.png"],
        "of another format than their names say": ["dog/other.jpg"],
        "empty files": ["dog/empty.png"],
    }
    assert sum(map(len, splits.by_name().values())) == 61


def test_copies_are_counted_and_removed(tmp_path: Path) -> None:
    files = {
        f"{pet}/{k:03d}.png": encoded(k % 60 + 1000 * (pet == "dog" and k > 9))
        for pet in ("cat", "dog")
        for k in range(100)
    }
    path = write_folder(tmp_path / "files", files)
    splits = made(open_images(path), tmp_path / "kept")
    told = prepared.read_metadata(tmp_path / "kept")["duplicates"]
    held = {part: [bytes(image.numpy()) for image in images.pixels] for part, images in splits.by_name().items()}
    parts = list(held)
    for a, first in enumerate(parts):
        for second in parts[a + 1 :]:
            slow = sum(image in held[first] for image in held[second])
            assert told["across"][f"{first} > {second}"] == slow
        assert told["within"][first] == len(held[first]) - len(set(held[first]))
    labels: dict[bytes, set[int]] = {}
    for part, images in splits.by_name().items():
        for image, label in zip(held[part], images.labels.tolist(), strict=True):
            labels.setdefault(image, set()).add(label)
    assert told["other_label"] == sum(len(labels[image]) > 1 for images in held.values() for image in images) > 0
    assert count_split_copies(splits) == {key: value for key, value in told.items() if key != "removed"}

    cleaned = made(open_images(path), tmp_path / "removed", remove_duplicates=True)
    seen: set[bytes] = set()
    for part, images in cleaned.by_name().items():
        left = [bytes(image.numpy()) for image in images.pixels]
        assert left == [image for image in held[part] if image not in seen]
        seen |= set(left)
    removed = prepared.read_metadata(tmp_path / "removed")["notes"]["copies of images in an earlier split, removed"]
    assert len(removed) == told["images_across"] == 200 - sum(map(len, cleaned.by_name().values()))


def test_groups_stay_together_and_shares_are_met(tmp_path: Path) -> None:
    splits = made(Generated(2000, groups=400), tmp_path / "set")
    parts = [
        {int.from_bytes(image.numpy().tobytes()[:4], "little") % 400 for image in images.pixels}
        for images in splits.by_name().values()
    ]
    assert sum(map(len, parts)) == 400 == len(set().union(*parts))
    for (part, images), share in zip(splits.by_name().items(), SPLIT_PERCENTAGES.values(), strict=True):
        assert abs(len(images) - 20 * share) <= 10, part
        assert abs(float(images.labels.double().mean()) - 0.5) < 0.1


def test_single_images_are_parted_as_without_groups() -> None:
    labels = np.arange(100) % 3
    by_group = assign_splits(labels, [f"{k}" for k in range(100)], "sparseguard")
    for part, order in assign_splits(labels, [""] * 100, "sparseguard").items():
        assert (by_group[part] == order).all()


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_decode, "CHUNK", 64 * 48)
    path = write_tar(tmp_path / "set.tar.gz", pets(200))
    expected = flat(made(open_images(path), tmp_path / "whole"))

    class Killed:
        @contextmanager
        def task(self, label, total):
            done = 0

            def advance(steps: int) -> None:
                nonlocal done
                done += steps
                if done >= 256:
                    raise KeyboardInterrupt

            yield advance

        def say(self, message: str) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        made(open_images(path), tmp_path / "set", progress=Killed(), workers=2)
    assert not (tmp_path / "set").exists()
    kept = len(list((tmp_path / "set.work").glob("0*.json")))
    assert kept >= 2
    decoded: Counter[str] = Counter()
    original = parallel_decode.decode

    def counting(content, look, *, name):
        decoded[name] += 1
        return original(content, look, name=name)

    monkeypatch.setattr(parallel_decode, "decode", counting)
    assert flat(made(open_images(path), tmp_path / "set")) == expected
    assert decoded.total() == 400 - 64 * kept
    assert not (tmp_path / "set.work").exists()


def test_chunks_of_other_files_are_not_taken(tmp_path: Path) -> None:
    work = tmp_path / "set.work"
    work.mkdir()
    (work / "00000000.json").write_text("{}")
    (work / "plan.json").write_text('{"plan": "another", "facts": {"size": [1, 1]}}')
    assert len(made(Generated(100), tmp_path / "set").private) == 70


def test_sizes_that_differ_need_a_size(tmp_path: Path) -> None:
    files = pets(10) | {"dog/large.png": encoded(1, size=(9, 9))}
    path = write_zip(tmp_path / "set.zip", files)
    with pytest.raises(DataError, match=r"dog/large\.png: is 9 x 9 pixels, the first image, cat/00\.png, is 8 x 6"):
        made(open_images(path), tmp_path / "set", ImageFormat(channels=1))
    assert [file.name for file in tmp_path.iterdir() if file.is_dir()] == []


def test_a_size_taken_from_the_first_image_is_noted(tmp_path: Path) -> None:
    made(open_images(write_zip(tmp_path / "set.zip", pets(60))), tmp_path / "set", ImageFormat(channels=1))
    noted = {"no size asked for, so all have the first image's, 8 x 6": ["cat/00.png"]}
    assert prepared.read_metadata(tmp_path / "set")["notes"] == noted


def test_classes_that_a_part_lacks_are_noted(tmp_path: Path) -> None:
    files = pets(100)
    rare = {f"owl/{k}.png": encoded(5000 + k) for k in range(2)}
    splits = made(open_images(write_zip(tmp_path / "set.zip", files | rare)), tmp_path / "set")
    lacking = [part for part, images in splits.by_name().items() if 2 not in images.labels]
    noted = {f"classes without an image in split {part}": ["owl"] for part in lacking}
    assert lacking
    assert prepared.read_metadata(tmp_path / "set")["notes"] == noted


def test_why_images_were_left_out_is_noted(tmp_path: Path) -> None:
    wide = saved(Image.fromarray(np.ones((8, 6), dtype=np.float32)), "TIFF")
    files = pets(30) | {"cat/small.png": encoded(1, size=(3, 3)), "cat/wide.tif": wide, "cat/cut.png": encoded(3)[:-50]}
    path = write_zip(tmp_path / "set.zip", files)
    made(open_images(path), tmp_path / "set", ImageFormat(size=(4, 4), channels=1, crop=4))
    assert prepared.read_metadata(tmp_path / "set")["notes"] == {
        "smaller than the crop 4": ["cat/small.png"],
        "32 bits a channel, whose range is not known": ["cat/wide.tif"],
        "unreadable": ["cat/cut.png"],
    }
    with pytest.raises(DataError, match=r"class 'cat' has no image.*smaller than the crop 9: 61, e\.g\. 'cat/00\.png'"):
        made(open_images(path), tmp_path / "none", ImageFormat(size=(4, 4), channels=1, crop=9))
    with pytest.raises(DataError, match=r"none of 63 images can be read. The first one: cat/00\.png.*smaller than"):
        made(open_images(path), tmp_path / "none", ImageFormat(channels=1, crop=9))


def test_classes_that_look_alike_are_noted(tmp_path: Path) -> None:
    names = ["Cat", "cat", "cat ", "c\u200bat", "dog"]
    files = {f"{name}/{k:02d}.png": encoded(100 * n + k) for n, name in enumerate(names) for k in range(20)}
    made(open_images(write_zip(tmp_path / "set.zip", files)), tmp_path / "set")
    notes = prepared.read_metadata(tmp_path / "set")["notes"]
    assert notes["classes that differ only in case, spaces or invisible letters"] == sorted(names[:-1])


def test_a_part_of_the_set_is_noted(tmp_path: Path) -> None:
    made(Generated(100), tmp_path / "part", whole=1000)
    assert prepared.read_metadata(tmp_path / "part")["notes"] == {"not the whole set of 1,000 images": ["100 images"]}
    made(Generated(100), tmp_path / "all", whole=100)
    assert prepared.read_metadata(tmp_path / "all")["notes"] == {}


def test_damaged_exif_data_warn_nobody(tmp_path: Path) -> None:
    files = pets(30) | {"cat/odd.jpg": saved(Image.new("L", (6, 8)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")}
    made(open_images(write_zip(tmp_path / "set.zip", files)), tmp_path / "set")
    assert prepared.read_metadata(tmp_path / "set")["notes"] == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        chunk_store.save_array(full, np.zeros(1 << 20, np.uint8))
    monkeypatch.setattr(assemble, "IMAGES", full)
    with pytest.raises(StoreError, match="the disk is full"):
        made(Generated(100), tmp_path / "set")
    monkeypatch.undo()
    assert len(list((tmp_path / "set.work").glob("0*.json"))) == 1
    assert len(made(Generated(100), tmp_path / "set").private) == 70


def test_no_map_is_written_to_since_a_full_disk_would_end_the_process(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a map was opened for writing")

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse)
    source = Generated(100)
    with source:
        prepare(source, tmp_path / "set", LOOK, name="set", layout="sparseguard", flips_keep_class=True)


@pytest.mark.parametrize(
    "array", [np.arange(6).reshape(2, 3), np.zeros((0, 4), np.uint8), np.zeros(3, chunk_store.ROW)]
)
def test_arrays_are_written_as_numpy_writes_them(tmp_path: Path, array: np.ndarray) -> None:
    chunk_store.save_array(tmp_path / "mine.npy", array)
    np.save(tmp_path / "theirs.npy", array)
    assert (tmp_path / "mine.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(Generated(100), tmp_path / "there")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    made(Generated(100), tmp_path / "there")
    with pytest.raises(StoreError, match=r"Read-only.*SPARSEGUARD_CACHE"):
        made(Generated(100), tmp_path / "set")


def test_waiting_for_another_process_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    lock = filelock.FileLock(tmp_path / "set.lock")

    class Listening(Silent):
        def say(self, message: str) -> None:
            said.append(message)
            lock.release()

    lock.acquire()
    made(Generated(100), tmp_path / "set", progress=Listening())
    assert said[0].startswith("waiting for another process")


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class 'dog' has no image that can be read"):
        made(
            open_images(write_zip(tmp_path / "a.zip", pets(9) | {f"dog/{k:02d}.png": b"x" for k in range(9)})),
            tmp_path / "a",
        )
    with pytest.raises(DataError, match="too few to be split"):
        made(Generated(4), tmp_path / "b")
    with pytest.raises(DataError, match="missing: three"):
        made(Generated(40), tmp_path / "c", classes=("even", "odd", "three"))


@pytest.mark.parametrize("damage", ["images.npy", "labels.npy", "prepared.json"])
def test_damaged_prepared_sets_are_refused(tmp_path: Path, damage: str) -> None:
    made(Generated(100), tmp_path / "set")
    file = tmp_path / "set" / damage
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="Remove it"):
        prepared.read_prepared(tmp_path / "set")


@pytest.mark.parametrize(
    "change", [{"parts": {"private": [0, 999]}}, {"classes": ["even"]}, {"parts": {"private": [1]}}, {"parts": None}]
)
def test_prepared_files_that_contradict_each_other_are_refused(tmp_path: Path, change: dict) -> None:
    made(Generated(100), tmp_path / "set")
    file = tmp_path / "set" / "prepared.json"
    told = json.loads(file.read_text())
    for key, value in change.items():
        told[key] = told[key] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(told))
    with pytest.raises(DataError, match=r"damaged.*Remove it"):
        prepared.read_prepared(tmp_path / "set")


@pytest.mark.parametrize("text", ["[1]", "1", '{"version": 99}', "\xff"])
def test_what_is_no_description_is_refused(tmp_path: Path, text: str) -> None:
    made(Generated(100), tmp_path / "set")
    (tmp_path / "set" / "prepared.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="Remove it"):
        prepared.read_prepared(tmp_path / "set")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_anonymous_memory_does_not_grow_with_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_decode, "CHUNK", 1 << 21)
    size = (96, 96)
    look = ImageFormat(size=size, channels=3)

    def peak(count: int) -> int:
        highest = 0

        class Watching:
            @contextmanager
            def task(self, label, total):
                def advance(_: int) -> None:
                    nonlocal highest
                    highest = max(highest, anonymous())

                yield advance

            def say(self, message: str) -> None:
                nonlocal highest
                highest = max(highest, anonymous())

        before = anonymous()
        splits = made(Generated(count, size), tmp_path / f"{count}", look, progress=Watching(), workers=2)
        splits.fingerprints()
        return max(highest, anonymous()) - before

    peak(300)
    small, large = peak(600), peak(3000)
    grown = 2400 * 96 * 96 * 3 / 1024
    assert large - small < 0.25 * grown, f"{small} kB for 600 images, {large} kB for 3,000"


def anonymous() -> int:
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def test_a_set_that_the_first_version_prepared_is_read_with_the_present_names_of_its_splits() -> None:
    """The files, and the fingerprints of their splits, were made by that version."""
    folder = Path(__file__).with_name("prepared_by_first_version")
    splits = prepared.read_prepared(folder)
    assert {split: (len(images), images.fingerprint()[:16]) for split, images in splits.by_name().items()} == {
        "private": (42, "0931a18bd4621e40"),
        "auxiliary": (9, "895aa30a32ac5991"),
        "auxiliary_val": (2, "b8b7bde340584c9d"),
        "tuning": (2, "cea9313683ae0fee"),
        "test": (5, "d30a909287ec1712"),
    }
    metadata = prepared.read_metadata(folder)
    assert list(metadata["parts"]) == ["private", "auxiliary", "auxiliary_val", "tuning", "test"]
    assert "auxiliary > auxiliary_val" in metadata["duplicates"]["across"]
    assert list(metadata["duplicates"]["within"]) == list(metadata["parts"])
