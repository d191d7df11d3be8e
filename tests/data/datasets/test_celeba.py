"""CelebA: labels made of its files, images matched by name, persons kept in one part."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparseguard.core.config import parse
from sparseguard.core.errors import DataError, RecipeError
from sparseguard.data import CelebA
from sparseguard.data.preparation.prepared_dataset import read_metadata
from sparseguard.data.readers.celeba_labels import ATTRIBUTES, hair_labels, read_attributes, read_identities

REAL = os.environ.get("SPARSEGUARD_DATA")
FIVE = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Bald")


@pytest.fixture(autouse=True)
def nothing_elsewhere(tmp_path, monkeypatch):
    """Hide this machine's own data and keep its cache clean."""
    monkeypatch.delenv("SPARSEGUARD_DATA", raising=False)
    monkeypatch.setenv("SPARSEGUARD_CACHE", str(tmp_path / "cache"))


def attributes_text(rows: dict[str, set[str]]) -> str:
    lines = [" ".join([name, *("1" if one in found else "-1" for one in ATTRIBUTES)]) for name, found in rows.items()]
    return "\n".join([str(len(rows)), " ".join(ATTRIBUTES), *lines, ""])


def encoded(number: int, size: tuple[int, int] = (89, 109)) -> bytes:
    """Return a PNG whose grey value, the same everywhere but at the border, tells its number."""
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    pixels[1:-1, 1:-1] = number
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def files(tmp_path) -> Path:
    """120 images of 30 persons, four each; a person has one hair colour; every sixth person is male."""
    folder = tmp_path / "files"
    (folder / "img_align_celeba").mkdir(parents=True)
    rows, people = {}, []
    for number in range(120):
        name, person = f"{number + 1:06d}.jpg", number % 30
        rows[name] = {
            FIVE[person % 5],
            *(["Male"] if person % 6 == 0 else []),
            *(["Smiling"] if number // 30 % 2 else []),
        }
        people.append(f"{name} {person + 1000}")
        (folder / "img_align_celeba" / name).write_bytes(encoded(number))
    (folder / "list_attr_celeba.txt").write_text(attributes_text(rows))
    (folder / "identity_CelebA.txt").write_text("\n".join([*people, ""]))
    return folder


def to_zip(folder: Path) -> None:
    images = folder / "img_align_celeba"
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        archive.mkdir("img_align_celeba")
        for file in images.iterdir():
            archive.write(file, f"img_align_celeba/{file.name}")
            file.unlink()
    images.rmdir()


def numbers(part) -> list[int]:
    """Which images a part has, from their pixels."""
    return part.pixels[:, 0, 20, 20].tolist()


@pytest.mark.parametrize("zipped", [False, True])
def test_every_image_has_the_hair_its_row_says_and_persons_are_in_one_part(files, zipped):
    if zipped:
        to_zip(files)
    splits = CelebA(path=files).load()
    assert splits.private.shape == (3, 64, 64)
    assert splits.private.classes == ("Black", "Blond", "Brown", "Gray", "Bald")
    persons = []
    for part in splits.by_name().values():
        assert part.labels.tolist() == [number % 30 % 5 for number in numbers(part)]
        persons.append({number % 30 for number in numbers(part)})
    assert sum(len(found) for found in persons) == 30
    assert sorted(number for part in splits.by_name().values() for number in numbers(part)) == list(range(120))


def test_the_folder_around_celeba_is_found(files, tmp_path, monkeypatch):
    files.rename(tmp_path / "celeba")
    assert len(CelebA(path=tmp_path, label="Smiling").load().private.classes) == 2
    monkeypatch.setenv("SPARSEGUARD_DATA", str(tmp_path))
    assert len(CelebA(label="Smiling").load().private.classes) == 2


def test_a_pair_of_attributes_gives_four_classes(files):
    splits = CelebA(path=files, label="Male+Smiling").load()
    assert splits.private.classes == (
        "not Male, not Smiling",
        "not Male, Smiling",
        "Male, not Smiling",
        "Male, Smiling",
    )
    for part in splits.by_name().values():
        expected = [2 * (number % 30 % 6 == 0) + number // 30 % 2 for number in numbers(part)]
        assert part.labels.tolist() == expected


def test_identities_are_the_most_frequent_ones_and_ties_go_to_the_smaller_number(files):
    for name in ("000120.jpg", "000002.jpg"):
        (files / "img_align_celeba" / name).unlink()
    dataset = CelebA(path=files, identities=12, layout="paper")
    folder = dataset.prepare()
    kept = [0, *range(2, 13)]
    assert read_metadata(folder)["classes"] == [str(1000 + person) for person in kept]
    splits = dataset.load()
    seen = Counter(
        (int(label), number)
        for part in (splits.private, splits.auxiliary, splits.auxiliary_val)
        for label, number in zip(part.labels, numbers(part), strict=True)
    )
    assert set(seen) == {(label, person + 30 * k) for label, person in enumerate(kept) for k in range(4)}
    assert set(seen.values()) == {1}
    for part in splits.by_name().values():
        assert set(part.labels.tolist()) == set(range(12))


@pytest.fixture
def many(files) -> Path:
    """The same 120 images, person k having 3 + 2 k of them, as long as there are any."""
    persons = [person for person in range(20) for _ in range(3 + 2 * person)][:120]
    (files / "identity_CelebA.txt").write_text(
        "".join(f"{number + 1:06d}.jpg {person}\n" for number, person in enumerate(persons))
    )
    return files


def test_every_person_is_in_every_part(many):
    splits = CelebA(path=many, identities=9).load()
    assert splits.private.classes == ("9", "8", "7", "6", "5", "4", "3", "2", "1")
    counts = {name: np.bincount(part.labels, minlength=9).tolist() for name, part in splits.by_name().items()}
    assert all(min(found) >= 1 for found in counts.values())
    assert [sum(found) for found in zip(*counts.values(), strict=True)] == [21, 19, 17, 15, 13, 11, 9, 7, 5]
    assert {name: found[0] for name, found in counts.items()} == {
        "private": 14,
        "auxiliary": 3,
        "auxiliary_val": 1,
        "tuning": 1,
        "test": 2,
    }
    assert {name: found[-1] for name, found in counts.items()} == dict.fromkeys(counts, 1)
    held = [number for part in splits.by_name().values() for number in numbers(part)]
    assert len(held) == len(set(held))


def test_persons_with_too_few_images_for_all_parts_are_refused_by_number(many):
    with pytest.raises(DataError, match=r"9 have 5 images or more, one for each split.*identity 0 has 3"):
        CelebA(path=many, identities=10).load()
    assert len(CelebA(path=many, identities=10, layout="paper").load().tuning.classes) == 10


def test_a_person_left_with_too_few_readable_images_is_refused(many):
    (many / "img_align_celeba" / "000004.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"class '1' has 4 images that can be read, needs 5.*000004\.jpg"):
        CelebA(path=many, identities=9).load()


def test_a_class_without_images_in_a_partial_set_is_explained(files):
    for number in range(4, 120, 5):
        (files / "img_align_celeba" / f"{number + 1:06d}.jpg").unlink()
    with pytest.raises(DataError, match=r"class 'Bald' has no image\. The set is partial: 96 of the 120 images listed"):
        CelebA(path=files).load()


def test_sizes_smaller_than_the_classes_are_refused_once_the_set_is_read(files):
    with pytest.raises(DataError, match="split 'private': asked for 4 images of 5 classes"):
        CelebA(path=files, private=4).load()
    with pytest.raises(RecipeError, match="at least 2"):
        parse(CelebA, {"private": 1}, "[data]")


def test_too_many_identities_are_refused(files):
    with pytest.raises(DataError, match="the images show 30"):
        CelebA(path=files, identities=31).load()
    for file in sorted((files / "img_align_celeba").iterdir())[31:]:
        file.unlink()
    with pytest.raises(DataError, match="0 have 5 images or more"):
        CelebA(path=files, identities=2).load()


@pytest.mark.parametrize(
    ("none", "several"), [("drop", "drop"), ("class", "drop"), ("drop", "class"), ("class", "class")]
)
@settings(max_examples=20)
@given(rows=st.lists(st.sets(st.sampled_from([*FIVE, "Male"])), min_size=1, max_size=20))
def test_the_rules_for_none_and_several_are_kept(none, several, rows):
    text = attributes_text({f"{number}.jpg": found for number, found in enumerate(rows)})
    attributes = read_attributes(text, "list")
    labelled = hair_labels(list(attributes.flags), attributes, "list", none=none, several=several)
    for number, found in enumerate(rows):
        name, hair = f"{number}.jpg", sorted(found & set(FIVE))
        kind = "none" if not hair else "several" if len(hair) > 1 else hair[0].removesuffix("_Hair")
        dropped = {"none": none, "several": several}.get(kind) == "drop"
        assert (name in labelled.label) is not dropped
        if dropped:
            assert name in labelled.left_out[f"{kind} of the five hair flags set"]
        else:
            assert labelled.classes[labelled.label[name]] == kind


@pytest.mark.parametrize(("size", "side"), [((89, 109), 74), ((178, 218), 148), ((45, 55), 37)])
def test_the_crop_is_scaled_with_the_images(files, size, side):
    for number, file in enumerate(sorted((files / "img_align_celeba").iterdir())):
        file.write_bytes(encoded(number, size))
    dataset = CelebA(path=files, size=side)
    splits = dataset.load()
    assert read_metadata(dataset.prepare())["look"]["crop"] == side
    assert splits.private.shape == (3, side, side)
    assert (splits.private.pixels == splits.private.pixels[:, :1, :1, :1]).all()


def test_images_of_other_proportions_need_crop_0(files):
    for number, file in enumerate(sorted((files / "img_align_celeba").iterdir())):
        file.write_bytes(encoded(number, (32, 32)))
    with pytest.raises(DataError, match="crop = 0"):
        CelebA(path=files).load()
    assert CelebA(path=files, crop=0, size=32, channels=1).load().private.shape == (1, 32, 32)


def test_a_partial_set_is_fine_and_what_does_not_match_is_named(files):
    images = files / "img_align_celeba"
    (images / "000120.jpg").unlink()
    (images / "000121.jpg").write_bytes(encoded(121))
    (images / "read.me").write_text("no image")
    people = (files / "identity_CelebA.txt").read_text().splitlines()
    (files / "identity_CelebA.txt").write_text("\n".join(people[1:]))
    (images / "000003.jpg").write_bytes(b"")
    notes = read_metadata(CelebA(path=files).prepare())["notes"]
    assert notes.pop("unreadable") == ["000003.jpg"]
    assert notes.pop("of another format than their names say")
    assert notes == {
        "in identity_CelebA.txt, but no such image": ["000120.jpg"],
        "in list_attr_celeba.txt, but no such image": ["000120.jpg"],
        "not in identity_CelebA.txt": ["000001.jpg", "000121.jpg", "read.me"],
        "not in list_attr_celeba.txt": ["000121.jpg", "read.me"],
    }


def test_label_files_as_windows_writes_them_are_read(files):
    expected = CelebA(path=files).load().fingerprints()
    for name in ("list_attr_celeba.txt", "identity_CelebA.txt"):
        text = (files / name).read_text()
        (files / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    dataset = CelebA(path=files)
    assert dataset.load().fingerprints() == expected
    assert not [reason for reason in read_metadata(dataset.prepare())["notes"] if reason.startswith(("in ", "not in "))]


def test_files_that_do_not_belong_together_are_refused(files):
    for file in (files / "img_align_celeba").iterdir():
        file.rename(file.with_name(f"x{file.name}"))
    with pytest.raises(DataError, match="do not belong together"):
        CelebA(path=files).load()


@pytest.mark.parametrize("missing", ["list_attr_celeba.txt", "identity_CelebA.txt"])
def test_a_missing_label_file_is_named(files, missing):
    (files / missing).unlink()
    with pytest.raises(DataError, match=missing):
        CelebA(path=files).load()


def test_missing_images_are_named(tmp_path):
    with pytest.raises(DataError, match=r"img_align_celeba\.zip"):
        CelebA(path=tmp_path).load()


def test_two_images_of_one_name_are_refused(files):
    (files / "img_align_celeba" / "more").mkdir()
    (files / "img_align_celeba" / "more" / "000001.jpg").write_bytes(encoded(0))
    with pytest.raises(DataError, match="one name"):
        CelebA(path=files).load()


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"nothing of the kind"])
def test_what_is_no_zip_is_refused(files, content):
    to_zip(files)
    (files / "img_align_celeba.zip").write_bytes(content)
    with pytest.raises(DataError):
        CelebA(path=files).load()


def test_a_zip_whose_names_lead_out_is_refused(files):
    to_zip(files)
    with zipfile.ZipFile(files / "img_align_celeba.zip", "a") as archive:
        archive.writestr("../000121.jpg", encoded(0))
    with pytest.raises(DataError, match="leads out"):
        CelebA(path=files).load()


def test_links_are_not_followed(files, tmp_path):
    (tmp_path / "secret").write_bytes(encoded(200))
    (files / "img_align_celeba" / "000001.jpg").unlink()
    (files / "img_align_celeba" / "000001.jpg").symlink_to(tmp_path / "secret")
    folder = CelebA(path=files).prepare()
    assert read_metadata(folder)["notes"]["links, not followed"] == ["000001.jpg"]
    assert "000001.jpg" not in json.loads((folder / "names.json").read_text())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin"),
        ("x\nBald\na.jpg 1\n", "must begin"),
        ("1\nBald Bald\na.jpg 1 1\n", "each attribute once"),
        ("2\nBald\na.jpg 1\n", "declares 2 images and has 1"),
        ("1\nBald\na.jpg 0\n", "line 3"),
        ("1\nBald\na.jpg 1 1\n", "line 3"),
        ("2\nBald\na.jpg 1\n\n", "line 4"),
        ("2\nBald\na.jpg 1\na.jpg 1\n", "names a.jpg again"),
    ],
)
def test_damaged_attributes_are_refused(text, said):
    with pytest.raises(DataError, match=said):
        read_attributes(text, "list")


@pytest.mark.parametrize("text", ["a.jpg\n", "a.jpg x\n", "a.jpg -1\n", "a.jpg 1 2\n", "a.jpg 1\na.jpg 1\n", "\n"])
def test_damaged_identities_are_refused(text):
    with pytest.raises(DataError, match="line"):
        read_identities(text, "identities")


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_label_files_of_any_text_are_read_or_refused(text):
    for read in (read_attributes, read_identities):
        with suppress(DataError):
            read(text, "file")


def test_label_files_that_are_no_text_are_refused(files):
    (files / "list_attr_celeba.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="no text"):
        CelebA(path=files).load()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"label": "Smilin"}, "Smiling"),
        ({"label": "hair+Male"}, "neither"),
        ({"label": "Male+Male"}, "two different"),
        ({"label": "Male+Young+Smiling"}, "two different"),
        ({"label": "Male", "no_hair": "class"}, "rules for"),
        ({"identities": 5, "several_hair": "class"}, "rules for"),
        ({"identities": 1}, "greater than or equal to 2"),
        ({"crop": 179}, "less than or equal to 178"),
    ],
)
def test_settings_that_mean_nothing_are_refused(table, said):
    with pytest.raises(RecipeError, match=said):
        parse(CelebA, table, "[data]")


def test_the_hair_of_the_real_set_is_counted_as_its_readme_counts():
    """The counts were made by others, with other code."""
    root = REAL and Path(REAL) / "celeba" / "list_attr_celeba.txt"
    if not root or not root.is_file():
        pytest.skip("SPARSEGUARD_DATA names no folder with celeba/list_attr_celeba.txt")
    attributes = read_attributes(root.read_text(), str(root))
    if len(attributes.flags) != 10_000:
        pytest.skip("the counts are known for the first 10,000 images only")
    labelled = hair_labels(list(attributes.flags), attributes, str(root))
    counts = Counter(labelled.classes[label] for label in labelled.label.values())
    assert counts == {"Black": 2373, "Brown": 1920, "Blond": 1360, "Gray": 344, "Bald": 180}
    assert sorted(len(names) for names in labelled.left_out.values()) == [215, 3608]
