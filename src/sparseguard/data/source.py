"""Where images come from before they are prepared: an opened folder, archive or array file."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from sparseguard.errors import DataError

Bytes = npt.NDArray[np.uint8]
Content = bytes | Bytes
"""An encoded image file, or ``(h, w)`` or ``(h, w, c)`` uint8 pixels."""

LARGEST_FILE = 1 << 26
"""An encoded image of more bytes is refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One image of a source.

    Args:
        name: path inside the folder or archive, for messages.
        label: index into the source's classes.
        group: images of one group stay in one part of the split; empty: each its own group.
    """

    name: str
    label: int
    group: str = ""


class Notes:
    """What was left out or converted and why: reason -> names of all images it befell."""

    def __init__(self) -> None:
        self.by_reason: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Note one image."""
        self.by_reason.setdefault(reason, []).append(name)


class Source(ABC):
    """An opened folder, archive or array file; a context manager.

    `classes`, `notes`, `classes_in_all_parts` (whether every part must have every class, whatever its share) and
    `advice` (what to do when a class has no image) are complete once `items` was called.
    """

    def __init__(self) -> None:
        self.classes: tuple[str, ...] = ()
        self.notes: dict[str, list[str]] = {}
        self.classes_in_all_parts = False
        self.advice = ""

    @abstractmethod
    def items(self) -> list[Item]:
        """Return all images, by sorted names.

        Raises:
            DataError: when the source is damaged, unsafe, or holds no images in classes.
        """

    @abstractmethod
    def read(self, item: Item) -> Content:
        """Return one image.

        Raises:
            DataError: when it cannot be read.
        """

    @abstractmethod
    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of the files that are read, by their names."""

    def key(self) -> str:
        """Return what tells this source from another one without reading its images; it changes when files do."""
        return hashlib.sha256(json.dumps(self.checksums(), sort_keys=True).encode()).hexdigest()

    def stream(self, items: Sequence[Item], start: int = 0) -> Iterator[tuple[int, Content | DataError]]:
        """Yield place in ``items`` and content of every image, in the order in which they are read fastest.

        An image that cannot be read while others can is yielded as the error; that order never changes.

        Args:
            items: what `items` returned.
            start: skip as many from the beginning of that order.
        """
        for index in range(start, len(items)):
            try:
                yield index, self.read(items[index])
            except DataError as error:
                yield index, error

    def close(self) -> None:  # noqa: B027
        """Let go of open files."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm"})
"""Endings of names that are taken for images, in lower case."""

SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
"""Names of folders around the classes that are merged, in lower case."""

_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A member of an archive or a file of a folder, before it is known to be an image."""

    name: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Arranged:
    """Files put into classes."""

    classes: tuple[str, ...]
    items: list[Item]
    notes: dict[str, list[str]] = field(default_factory=dict)


def check_name(name: str, where: Path) -> None:
    """Refuse a member's name that points outside, or that no terminal can show.

    Raises:
        DataError: for an absolute name, ``..``, control characters, or bytes that are no text.
    """
    bad = None
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        bad = "is absolute"
    elif ".." in re.split(r"[/\\]", name):
        bad = "leads out of its folder"
    elif not name.isprintable() and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        bad = "has control characters or is no valid text"
    if bad:
        raise DataError(f"{where}: the name {name!a} {bad}. Do not trust this file; make it again.")


def arrange(files: Iterable[File], folders: Iterable[str], where: Path) -> Arranged:
    """Put files into classes by their folders: ``<class>/<image>``.

    One folder around all of them is allowed, and so are ``train|test|val/<class>/<image>``, which are merged.
    Classes are the folders' names (in Unicode's form NFC), sorted.

    Args:
        files: all files.
        folders: names of all folders, to find those without images.
        where: the source, for messages.

    Raises:
        DataError: for two files of the same name, or fewer than two classes.
    """
    notes = Notes()
    images = [found for file in files if (found := _image_parts(file, notes))]
    depth = 1 if _wrapped(images) else 0
    placed: dict[tuple[str, ...], str] = {}
    for name, parts in images:
        inner = parts[depth:]
        split = inner[:1] if len(inner) == 3 and inner[0].lower() in SPLITS else ()
        rest = inner[len(split) :]
        if len(rest) != 2:
            notes.add("not directly in a class folder", name)
            continue
        key = (rest[0], *split, rest[1])
        if key in placed:
            raise DataError(f"{where}: two files have the name {name!r}. Rename or remove one of them.")
        placed[key] = name
    classes = tuple(sorted({key[0] for key in placed}))
    if len(classes) < 2:
        raise DataError(
            f"{where}: found {len(classes)} classes of images, need 2 or more. "
            f"Put the images into one folder a class: <class>/<image>.{_summary(notes)}"
        )
    number = {name: index for index, name in enumerate(classes)}
    for folder in sorted(set(folders)):
        inner = _parts(folder)[depth:]
        last = inner[-1] if inner else ""
        if last and last not in number and last.lower() not in SPLITS and len(inner) <= 2:
            notes.add("class folders without images", folder)
    items = [Item(name=placed[key], label=number[key[0]]) for key in sorted(placed)]
    return Arranged(classes=classes, items=items, notes=notes.by_reason)


def _image_parts(file: File, notes: Notes) -> tuple[str, tuple[str, ...]] | None:
    parts = _parts(file.name)
    reason = None
    if not parts or parts[0] == "__MACOSX" or parts[-1].startswith(".") or parts[-1] == "Thumbs.db":
        reason = "files of the operating system"
    elif not parts[-1].lower().endswith(tuple(SUFFIXES)):
        reason = "no images by their names"
    elif file.size == 0:
        reason = "empty files"
    elif file.size > LARGEST_FILE:
        reason = f"larger than {LARGEST_FILE:,} bytes"
    if reason:
        notes.add(reason, file.name)
        return None
    return file.name, parts


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in unicodedata.normalize("NFC", name).split("/") if part not in ("", "."))


def _wrapped(images: list[tuple[str, tuple[str, ...]]]) -> bool:
    tops = {parts[0] for _, parts in images}
    return len(tops) == 1 and all(len(parts) >= 3 for _, parts in images) and not tops & SPLITS


def _summary(notes: Notes) -> str:
    told = [f"{len(names):,} {reason}, e.g. {names[0]!r}" for reason, names in notes.by_reason.items()]
    return f" Left out: {'; '.join(told)}." if told else ""
