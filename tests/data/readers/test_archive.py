"""Folders and archives of images from strangers."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparseguard.core.errors import DataError
from sparseguard.data.datasets.image_folder import UserImages
from sparseguard.data.readers import archive as archives
from sparseguard.data.readers.archive import open_images
from sparseguard.data.readers.class_folders import File, group_by_class
from support.image_files import encoded, pets, write_folder, write_tar, write_zip

WRITERS = {
    "folder": write_folder,
    "tar": lambda path, files: write_tar(path, files, "w:"),
    "tar.gz": write_tar,
    "zip": write_zip,
}
ALL = pytest.mark.parametrize("kind", WRITERS)
ARCHIVES = pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def content(path: Path) -> tuple[tuple[str, ...], list[tuple[int, bytes]], dict[str, list[str]]]:
    with open_images(path) as source:
        items = source.items()
        streamed = dict(source.stream(items))
        assert sorted(streamed) == list(range(len(items)))
        for index in (0, len(items) - 1):
            assert source.read(items[index]) == streamed[index]
        rest = list(source.stream(items, 3))
        assert rest == list(source.stream(items))[3:]
        return source.classes, [(item.label, streamed[k]) for k, item in enumerate(items)], source.notes


@ALL
@pytest.mark.parametrize("top", ["", "set/", "./", "./set/"])
def test_every_way_of_packing_gives_the_same_images(tmp_path: Path, kind: str, top: str) -> None:
    files = pets(4)
    shuffled = {top + name: files[name] for name in sorted(files, key=lambda name: files[name])}
    classes, images, notes = content(WRITERS[kind](tmp_path / "set", shuffled))
    assert classes == ("cat", "dog")
    assert images == [(int(name.startswith("dog")), files[name]) for name in sorted(files)]
    assert notes == {}


@ALL
def test_train_and_test_are_merged(tmp_path: Path, kind: str) -> None:
    files = {
        f"{part}/{pet}/1.png": encoded(k)
        for k, (part, pet) in enumerate((part, pet) for part in ("train", "test") for pet in ("cat", "dog"))
    }
    classes, images, _ = content(WRITERS[kind](tmp_path / "set", files))
    assert classes == ("cat", "dog")
    assert [label for label, _ in images] == [0, 0, 1, 1]
    assert {read for _, read in images} == set(files.values())


@ALL
def test_what_is_left_out_is_named(tmp_path: Path, kind: str) -> None:
    files = pets(3) | {
        "cat/empty.png": b"",
        "cat/notes.txt": b"x",
        "cat/.DS_Store": b"x",
        "loose.png": encoded(),
        "cat/deep/er/1.png": encoded(),
        "Füchse/ä.png": encoded(7),
    }
    classes, images, notes = content(WRITERS[kind](tmp_path / "set", files))
    assert classes == ("Füchse", "cat", "dog")
    assert len(images) == 7
    assert {reason: sorted(names) for reason, names in notes.items() if reason != "class folders without images"} == {
        "empty files": ["cat/empty.png"],
        "no images by their names": ["cat/notes.txt"],
        "hidden, or files of the operating system": ["cat/.DS_Store"],
        "not directly in a class folder": ["cat/deep/er/1.png", "loose.png"],
    }


def test_empty_classes_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", pets(2) | {"fish/none.txt": b"x"})
    (folder / "bird").mkdir()
    assert content(folder)[2]["class folders without images"] == ["bird", "fish"]


@ARCHIVES
@pytest.mark.parametrize(
    "name", ["/etc/cat/1.png", "../cat/1.png", "cat/../../1.png", "C:\\cat\\1.png", "cat\\..\\1.png"]
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = WRITERS[kind](tmp_path / "set", pets(2) | {name: encoded()})
    with pytest.raises(DataError, match=r"absolute|out of its folder"):
        content(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@ARCHIVES
def test_two_files_of_one_name_are_refused(tmp_path: Path, kind: str) -> None:
    files = pets(2)
    path = WRITERS[kind](tmp_path / "set", files)
    if kind == "zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("cat/00.png", encoded(5))
    else:
        with tarfile.open(path, "w") as tar:
            for name in [*files, "cat/00.png"]:
                member = tarfile.TarInfo(name)
                member.size = len(files[name])
                tar.addfile(member, io.BytesIO(files[name]))
    with pytest.raises(DataError, match=r"cat/00\.png"):
        content(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_not_followed(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as tar:
        for name, one in pets(2).items():
            member = tarfile.TarInfo(name)
            member.size = len(one)
            tar.addfile(member, io.BytesIO(one))
        odd = tarfile.TarInfo("cat/odd.png")
        odd.type, odd.linkname = kind, "/etc/passwd"
        tar.addfile(odd)
    _, images, notes = content(path)
    assert len(images) == 4
    assert notes == {"links, devices and the like": ["cat/odd.png"]}


def test_links_in_zips_and_folders_are_not_followed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", pets(2))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("cat/odd.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert content(path)[2] == {"links, devices and the like": ["cat/odd.png"]}
    folder = write_folder(tmp_path / "folder", pets(2))
    (folder / "cat" / "odd.png").symlink_to(folder / "cat" / "00.png")
    (folder / "loop").symlink_to(folder)
    assert content(folder)[2] == {"links, not followed": ["loop", "cat/odd.png"]}


@ARCHIVES
def test_bombs_are_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "BOMB_SIZE", 1 << 16)
    path = tmp_path / "set"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for k in range(8):
                archive.writestr(f"cat/{k}.png", bytes(1 << 20))
    elif kind == "tar.gz":
        write_tar(path, {f"cat/{k}.png": bytes(1 << 20) for k in range(8)})
    else:
        member = tarfile.TarInfo("cat/1.png")
        member.size = 1 << 60
        path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(DataError, match=r"bomb|read"):
        content(path)


def test_a_header_that_declares_much_memory_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "set.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(DataError, match="declares"):
        content(tmp_path / "set.tar")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.7])
@ARCHIVES
def test_incomplete_archives_are_refused(tmp_path: Path, kind: str, cut: float) -> None:
    path = WRITERS[kind](tmp_path / "set", pets(8))
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(DataError):
        content(path)


def test_a_tar_damaged_in_the_middle_is_not_taken_for_its_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "set.tar", pets(8), "w:")
    damaged = bytearray(path.read_bytes())
    damaged[5 * 1024] ^= 1  # the name of the sixth member's header, whose checksum is wrong then
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="near byte"):
        content(path)


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    hidden = {".ipynb_checkpoints/1.png": encoded(), "__MACOSX/cat/1.png": encoded(), "cat/.thumbs/1.png": encoded()}
    folder = write_folder(tmp_path / "set", pets(2) | hidden)
    (folder / ".git").mkdir()
    classes, _, notes = content(folder)
    assert classes == ("cat", "dog")
    assert {reason: sorted(names) for reason, names in notes.items()} == {
        "hidden, or files of the operating system": sorted(hidden)
    }


@ALL
def test_images_directly_in_a_folder_of_a_split_have_no_class(tmp_path: Path, kind: str) -> None:
    files = {f"train/{name}": one for name, one in pets(2).items()} | {
        "test/1.png": encoded(1),
        "Val/2.png": encoded(2),
    }
    classes, images, notes = content(WRITERS[kind](tmp_path / "set", files))
    assert classes == ("cat", "dog")
    assert len(images) == 4
    assert sorted(notes["not directly in a class folder"]) == ["Val/2.png", "test/1.png"]


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    files = {f"{name}/{k}.png": encoded(k) for name in ("train", "bus") for k in range(2)}
    assert content(write_zip(tmp_path / "set.zip", files))[0] == ("bus", "train")


def test_backslashes_for_slashes_are_told(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", pets(2))
    path.write_bytes(path.read_bytes().replace(b"cat/", b"cat\\").replace(b"dog/", b"dog\\"))
    with pytest.raises(DataError, match="4 backslashes in place of slashes"):
        content(path)


@ARCHIVES
def test_names_that_turn_a_line_of_text_around_are_refused(tmp_path: Path, kind: str) -> None:
    path = WRITERS[kind](tmp_path / "set", pets(2) | {"cat/\u202egnp.png": encoded()})
    with pytest.raises(DataError, match="control characters"):
        content(path)


@pytest.mark.parametrize("start", [b"BZh9", b"\xfd7zXZ\0", b"7z\xbc\xaf\x27\x1c", encoded()])
def test_other_archives_are_refused_with_a_way_out(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "set").write_bytes(start + bytes(range(1, 200)) * 9)
    with pytest.raises(DataError, match=r"no tar, tar\.gz or zip archive.*unpack it and give the folder"):
        content(tmp_path / "set")


def test_nothing_there_or_no_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such"):
        open_images(tmp_path / "none")
    (tmp_path / "text").write_text("hello " * 1000)
    with pytest.raises(DataError, match="no folder and no tar"):
        content(tmp_path / "text")
    with pytest.raises(DataError, match=r"found no images in classes.*1 not directly in a class folder, e.g. '1.png'"):
        content(write_folder(tmp_path / "flat", {"1.png": encoded()}))


def test_one_class_can_be_read_but_is_no_data_set(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "one", {"cat/1.png": encoded(), "cat/2.txt": b"2"})
    with open_images(folder) as source:
        assert [(item.name, item.label) for item in source.items()] == [("cat/1.png", 0)]
    with pytest.raises(DataError, match=r"only the class 'cat', need 2 or more.*Left out: 1 no images by their names"):
        UserImages(path=folder).load()


@QUICK
@given(names=st.lists(st.text(max_size=12) | st.sampled_from(["cat/1.png", "dog/2.jpg", "a/b/c.png", "train/x/1.png"])))
def test_any_names_are_arranged_or_refused_and_none_is_lost(names: list[str]) -> None:
    files = [File(name=name, size=1) for name in names]
    try:
        arranged = group_by_class(files, [], Path("set"))
    except DataError:
        return
    noted = [name for reason, found in arranged.notes.items() for name in found]
    assert sorted([item.name for item in arranged.items] + noted) == sorted(names)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    return {kind: WRITERS[kind](folder / kind, pets(3)).read_bytes() for kind in ("tar", "tar.gz", "zip")}


@ARCHIVES
@QUICK
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=8))
def test_byte_flips_are_survived(
    tmp_path: Path, originals: dict[str, bytes], kind: str, flips: list[tuple[int, int]]
) -> None:
    damaged = bytearray(originals[kind])
    for place, mask in flips:
        damaged[place % len(damaged)] ^= mask
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    try:
        with open_images(path) as source:
            items = source.items()
            for _, read in source.stream(items):
                assert isinstance(read, bytes | DataError)
    except DataError:
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["damaged"]
