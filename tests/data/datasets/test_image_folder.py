"""Your own images: found, prepared once, and refused with a way out."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparseguard.core.config import parse
from sparseguard.core.errors import DataError, RecipeError
from sparseguard.data import UserImages
from sparseguard.data.readers.arrays import ArraySource
from support.image_files import encoded, pets, write_folder, write_tar

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 8, 6, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPARSEGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSEGUARD_DATA", raising=False)
    return tmp_path / "cache"


def pixels(splits) -> set[tuple[bytes, str]]:
    return {
        (image.permute(1, 2, 0).numpy().tobytes(), images.classes[int(label)])
        for images in splits.by_name().values()
        for image, label in zip(images.pixels, images.labels, strict=True)
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("names", [None, np.array(["fox", "Ähre", "cat"])])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_keep_pixels_and_labels_together(tmp_path, save, names, order) -> None:
    labels = LABELS if names is None else names[LABELS]
    save(tmp_path / "own.npz", images=np.asarray(IMAGES, order=order), labels=labels)
    splits = UserImages(path=tmp_path / "own.npz").load()
    assert splits.private.shape == (3, 8, 6)
    assert splits.private.classes == (("0", "1", "2") if names is None else ("cat", "fox", "Ähre"))
    assert pixels(splits) == {(image.tobytes(), str(label)) for image, label in zip(IMAGES, labels, strict=True)}


def test_grey_arrays_and_the_look(tmp_path) -> None:
    np.savez(tmp_path / "own.npz", images=IMAGES[..., 0], labels=LABELS)
    assert UserImages(path=tmp_path / "own.npz", channels=1).load().private.shape == (1, 8, 6)
    resized = UserImages(path=tmp_path / "own.npz", size=(4, 4), crop=5, flips_keep_class=False).load()
    assert resized.private.shape == (3, 4, 4)
    assert not resized.flips_keep_class


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "labels"),
        ({"x": IMAGES, "y": LABELS}, "has no array 'images', only 'x', 'y'"),
        ({"images": IMAGES / 255, "labels": LABELS}, "must be uint8.*Scale them to 0 to 255"),
        ({"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS}, "must be uint8.*Move the channels to the end"),
        ({"images": IMAGES, "labels": LABELS[:, None]}, r"got int64 \(60, 1\), expected \(60,\)"),
        ({"images": IMAGES, "labels": np.array(["", "b", "c"])[LABELS]}, "is empty"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, "must be uint8"),
        ({"images": IMAGES, "labels": LABELS[:-1]}, "as many labels"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, "integers or strings"),
        ({"images": IMAGES, "labels": np.zeros(60, int)}, "only the class '0', need 2 or more"),
        ({"images": IMAGES, "labels": np.array(["a\x1b[2J", "b", "c"])[LABELS]}, "control characters"),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, message) -> None:
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(DataError, match=message):
        UserImages(path=tmp_path / "own.npz").load()


def test_pickles_are_refused_and_never_run(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    np.savez(tmp_path / "own.npz", images=IMAGES, labels=np.array([Evil()] * 60, dtype=object))
    with pytest.raises(DataError, match="pickled"):
        UserImages(path=tmp_path / "own.npz").load()
    assert not (tmp_path / "ran").exists()


def test_an_array_bomb_is_refused(tmp_path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (1 << 30, 64, 64), "fortran_order": False, "descr": "|u1"})
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DataError, match="another size than it has"):
        ArraySource(tmp_path / "own.npz")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(1, 255)), min_size=1, max_size=8))
def test_flipped_bytes_of_arrays_are_survived(tmp_path, flips) -> None:
    out = io.BytesIO()
    np.savez(out, images=IMAGES[:9], labels=LABELS[:9])
    damaged = bytearray(out.getvalue())
    for place, mask in flips:
        damaged[place % len(damaged)] ^= mask
    (tmp_path / "own.npz").write_bytes(damaged)
    try:
        source = ArraySource(tmp_path / "own.npz")
        for item in source.items():
            source.read(item)
    except DataError:
        pass


def test_prepared_once_and_found_without_a_path(tmp_path, cache) -> None:
    path = write_tar(tmp_path / "pets.tar.gz", pets(20))
    first = UserImages(path=path, private=10).load()
    assert len(first.private) == 10
    prepared = list((cache / "prepared" / "images").glob("*/images.npy"))
    assert len(prepared) == 1
    changed = prepared[0].stat().st_mtime_ns
    again = UserImages(path=path).load()
    assert prepared[0].stat().st_mtime_ns == changed
    path.unlink()
    assert UserImages().load().fingerprints() == again.fingerprints()
    with pytest.raises(DataError, match="none prepared"):
        UserImages(channels=1).load()


def test_changed_files_are_prepared_again(tmp_path) -> None:
    folder = write_folder(tmp_path / "pets", pets(20))
    before = pixels(UserImages(path=folder).load())
    write_folder(folder, {"cat/new.png": encoded(12345)})
    after = pixels(UserImages(path=folder).load())
    assert len(after - before) == 1
    with pytest.raises(DataError, match="prepared from 2 places"):
        UserImages().load()


def test_nothing_is_written_but_the_cache(tmp_path, cache) -> None:
    folder = write_folder(tmp_path / "pets", pets(20))
    before = sorted(str(file) for file in tmp_path.rglob("*") if cache not in (file, *file.parents))
    UserImages(path=folder).load()
    after = sorted(str(file) for file in tmp_path.rglob("*") if cache not in (file, *file.parents))
    assert before == after


def test_sizes_smaller_than_the_classes_are_refused_once_the_set_is_read(tmp_path) -> None:
    np.savez(tmp_path / "own.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(DataError, match="split 'test': asked for 2 images of 3 classes"):
        UserImages(path=tmp_path / "own.npz", test=2).load()


def test_names_of_classes_are_compared_in_one_form_of_unicode(tmp_path) -> None:
    np.savez(tmp_path / "own.npz", images=IMAGES, labels=np.array(["\u00e4", "a\u0308", "c"])[LABELS])
    assert UserImages(path=tmp_path / "own.npz").load().private.classes == ("c", "\u00e4")


def test_endings_in_capitals_are_known(tmp_path) -> None:
    np.savez(tmp_path / "own.npz", images=IMAGES, labels=LABELS)
    (tmp_path / "own.npz").rename(tmp_path / "OWN.NPZ")
    assert len(UserImages(path=tmp_path / "OWN.NPZ").load().private) == 42


def test_paths_that_no_system_has_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be looked at"):
        UserImages(path=Path("x" * 5000)).load()


def test_settings_are_checked() -> None:
    for wrong in ({"size": [0, 8]}, {"size": 8}, {"channels": 2}, {"crop": -1}):
        with pytest.raises(RecipeError):
            parse(UserImages, wrong, "[data]")
    assert parse(UserImages, {"size": [8, 6]}, "[data]").size == (8, 6)
