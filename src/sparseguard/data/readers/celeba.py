"""CelebA's images, as a folder or a zip archive, with labels from its files."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image

from sparseguard.core.errors import DataError
from sparseguard.data.readers.archive import ZipSource
from sparseguard.data.readers.base import Content, Item, Notes, Source
from sparseguard.data.readers.celeba_labels import Attributes, Labelled, read_attributes, read_identities
from sparseguard.data.readers.class_folders import ClassFolders
from sparseguard.data.readers.folder import FolderSource

IMAGES, ATTRIBUTES_FILE, IDENTITIES_FILE = "img_align_celeba", "list_attr_celeba.txt", "identity_CelebA.txt"
WIDTH, HEIGHT = 178, 218
"""Of the images as published, in pixels; copies at another size have the same proportions."""

_LARGEST_TEXT = 1 << 27
Choose = Callable[[Sequence[str], Attributes, Mapping[str, int]], Labelled]


def open_celeba(path: Path, choose: Choose) -> Source:
    """Open CelebA's images and label files.

    Args:
        path: the folder that holds them, or the one around it when it is called ``celeba``.
        choose: labels the images of these names; see `sparseguard.data.readers.celeba_labels`.

    Raises:
        DataError: when images or one of the label files are missing.
    """
    folder = _folder(path)
    missing = [name for name in (ATTRIBUTES_FILE, IDENTITIES_FILE) if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {' and '.join(missing)} missing beside the images. Add what is missing.")
    return CelebASource(_open_images(folder), folder, choose)


class CelebASource(Source):
    """CelebA's images with labels from its files; images are matched with rows by their file names.

    Args:
        images: all images, without labels.
        folder: where the label files are.
        choose: makes labels.
    """

    def __init__(self, images: Source, folder: Path, choose: Choose) -> None:
        super().__init__()
        self._images, self._folder, self._choose = images, folder, choose

    def items(self) -> list[Item]:
        """Return the images that have a label, by file name; the others are in the notes, with the reason."""
        attributes = read_attributes(self._text(ATTRIBUTES_FILE), str(self._folder / ATTRIBUTES_FILE))
        identities = read_identities(self._text(IDENTITIES_FILE), str(self._folder / IDENTITIES_FILE))
        members = self._group_members()
        notes = {
            f"not in {ATTRIBUTES_FILE}": [name for name in members if name not in attributes.flags],
            f"not in {IDENTITIES_FILE}": [name for name in members if name not in identities],
            f"in {ATTRIBUTES_FILE}, but no such image": [name for name in attributes.flags if name not in members],
            f"in {IDENTITIES_FILE}, but no such image": [name for name in identities if name not in members],
        }
        names = sorted(name for name in members if name in attributes.flags and name in identities)
        if not names:
            raise DataError(
                f"{self._folder}: none of the {len(members):,} images is named in both {ATTRIBUTES_FILE} and "
                f"{IDENTITIES_FILE}. They do not belong together; get them again."
            )
        labelled = self._choose(names, attributes, identities)
        self.classes = labelled.classes
        self.classes_in_all_splits = not labelled.keep_together
        listed = len(attributes.flags.keys() & identities.keys())
        if len(names) < listed:
            self.advice = (
                f" The set is partial: {len(names):,} of the {listed:,} images listed are there. "
                "Add the others, or choose another label."
            )
        notes |= {**self._images.notes, **labelled.left_out}
        self.notes = {reason: befallen for reason, befallen in notes.items() if befallen}
        return [
            Item(name=members[name], label=labelled.label[name], group=str(identities[name]) * labelled.keep_together)
            for name in names
            if name in labelled.label
        ]

    def read(self, item: Item) -> Content:
        """Return one image's file."""
        return self._images.read(item)

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of the images' archive or folder, and of the label files."""
        return self._images.checksums() | self._label_checksums()

    def key(self) -> str:
        """Return what tells these files from others."""
        keys = [self._images.key(), *self._label_checksums().values()]
        return hashlib.sha256(" ".join(keys).encode()).hexdigest()

    def close(self) -> None:
        """Close the archive."""
        self._images.close()

    def _group_members(self) -> dict[str, str]:
        members: dict[str, str] = {}
        for item in self._images.items():
            name = PurePosixPath(item.name).name
            if name in members:
                raise DataError(f"{self._folder}: {members[name]} and {item.name} have one name. Remove one of them.")
            members[name] = item.name
        return members

    def _label_checksums(self) -> dict[str, str]:
        names = (ATTRIBUTES_FILE, IDENTITIES_FILE)
        return {name: hashlib.sha256(_content(self._folder / name)).hexdigest() for name in names}

    def _text(self, name: str) -> str:
        try:
            return _content(self._folder / name).decode("utf-8-sig").rstrip()
        except UnicodeDecodeError as error:
            raise DataError(f"{self._folder / name}: no text ({error}). Get it again.") from None


class _AllOfFolder(FolderSource):
    """Every file below a folder, in no classes."""

    def items(self) -> list[Item]:
        files, _, notes = self._walk()
        self._items = [Item(name=name, label=0) for name in sorted(file.name for file in files)]
        self.notes = notes.by_reason
        return self._items


class _AllOfZip(ZipSource):
    """Every file of a zip archive, in no classes."""

    def _group(self, notes: Notes) -> ClassFolders:
        files, _ = self._walk(notes)
        return ClassFolders(
            classes=(), items=[Item(name=name, label=0) for name in sorted(file.name for file in files)]
        )


def _folder(path: Path) -> Path:
    for folder in (path, path / "celeba"):
        if (folder / IMAGES).is_dir() or (folder / f"{IMAGES}.zip").is_file():
            return folder
    raise DataError(f"{path}: neither {IMAGES} nor {IMAGES}.zip in it. Set path= to the folder that holds it.")


def _open_images(folder: Path) -> Source:
    if (folder / IMAGES).is_dir():
        return _AllOfFolder(folder / IMAGES)
    try:
        return _AllOfZip(folder / f"{IMAGES}.zip")
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{folder / IMAGES}.zip: no zip archive that can be read ({error}). Get it again.") from None


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_TEXT + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Check its rights.") from None
    if len(content) > _LARGEST_TEXT:
        raise DataError(f"{path}: larger than {_LARGEST_TEXT:,} bytes. It is not CelebA's.")
    return content


def scaled_crop(crop: int, path: Path) -> int:
    """Return a crop of the published images in pixels of those below ``path``, by the first that can be read.

    Raises:
        DataError: when it has not the proportions of CelebA's aligned images.
    """
    with _open_images(_folder(path)) as images:
        width, height = _first_size(images)
    if abs(height / width - HEIGHT / WIDTH) > 0.02:
        raise DataError(
            f"{path}: the first image has {width} x {height} pixels, which are not the proportions of CelebA's aligned "
            f"{WIDTH} x {HEIGHT}. Set crop = 0 for images that are cropped already."
        )
    return max(1, round(crop * width / WIDTH))


def _first_size(images: Source) -> tuple[int, int]:
    for item in images.items():
        content = images.read(item)
        try:
            with Image.open(io.BytesIO(bytes(content)), formats=("JPEG", "PNG")) as image:
                return image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    raise DataError("none of CelebA's images can be read. Get them again.")
