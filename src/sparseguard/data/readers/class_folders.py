"""Classes of image files, by the folders they are in. Names are checked, since the files may be anybody's."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sparseguard.core.errors import DataError
from sparseguard.data.readers.base import LARGEST_FILE, Item, Notes, describe_skipped

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm"}
)
"""Endings of names that are taken for images, in lower case."""

SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
"""Names of folders around the classes that are merged, in lower case."""

ADVICE = "Put the images into one folder a class: <class>/<image>."

_REORDERING = frozenset(["LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"])
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A member of an archive or a file of a folder, before it is known to be an image."""

    name: str
    size: int


@dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """Image files by class."""

    classes: tuple[str, ...]
    items: list[Item]
    notes: dict[str, list[str]] = field(default_factory=dict)


def check_name(name: str, where: Path) -> None:
    """Refuse a member's name that points outside, or that no terminal can show.

    Raises:
        DataError: for an absolute or empty name, ``..``, control characters, or bytes that are no text.
    """
    bad = None
    if not name.strip():
        bad = "is empty"
    elif name.startswith(("/", "\\")) or _DRIVE.match(name):
        bad = "is absolute"
    elif ".." in re.split(r"[/\\]", name):
        bad = "leads out of its folder"
    elif not name.isprintable() and any(map(_is_hidden, name)):
        bad = "has control characters or is no valid text"
    if bad:
        raise DataError(f"{where}: the name {name!a} {bad}. Do not trust this file; make it again.")


def group_by_class(files: Iterable[File], folders: Iterable[str], where: Path) -> ClassFolders:
    """Put files into classes by their folders: ``<class>/<image>``.

    One folder around all of them is allowed, and so are ``train|test|val/<class>/<image>``, which are merged; beside
    them, images directly in one of these folders have no class.
    Classes are the folders' names (in Unicode's form NFC), sorted.

    Args:
        files: all files.
        folders: names of all folders, to find those without images.
        where: the source, for messages.

    Raises:
        DataError: for two files of the same name, or no images in classes.
    """
    notes = Notes()
    images = [image for file in files if (image := _image_parts(file, notes))]
    depth = 1 if _has_outer_folder(images) else 0
    has_splits = any(_split(parts[depth:]) for _, parts in images)
    names: dict[tuple[str, ...], str] = {}
    for name, parts in images:
        inner = parts[depth:]
        split = _split(inner)
        rest = inner[len(split) :]
        if len(rest) != 2 or (has_splits and not split and rest[0].lower() in SPLITS):
            backslashes = len(rest) == 1 and "\\" in name
            notes.add("backslashes in place of slashes" if backslashes else "not directly in a class folder", name)
            continue
        key = (rest[0], *split, rest[1])
        if key in names:
            raise DataError(f"{where}: two files have the name {name!r}. Rename or remove one of them.")
        names[key] = name
    classes = tuple(sorted({key[0] for key in names}))
    if not classes:
        raise DataError(f"{where}: found no images in classes. {ADVICE}{describe_skipped(notes.by_reason)}")
    number = {name: index for index, name in enumerate(classes)}
    for folder in sorted(set(folders)):
        inner = _parts(folder)[depth:]
        last = inner[-1] if inner else ""
        known = last in number or last.lower() in SPLITS
        if last and not known and len(inner) <= 2 and not _is_system_file(_parts(folder)):
            notes.add("class folders without images", folder)
    items = [Item(name=names[key], label=number[key[0]]) for key in sorted(names)]
    return ClassFolders(classes=classes, items=items, notes=notes.by_reason)


def _image_parts(file: File, notes: Notes) -> tuple[str, tuple[str, ...]] | None:
    parts = _parts(file.name)
    reason = None
    if not parts or _is_system_file(parts):
        reason = "hidden, or files of the operating system"
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


def _is_system_file(parts: tuple[str, ...]) -> bool:
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts) or parts[-1] == "Thumbs.db"


def _split(inner: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folder around a class folder, if it is one of those that are merged."""
    return inner[:1] if len(inner) == 3 and inner[0].lower() in SPLITS else ()


def _is_hidden(letter: str) -> bool:
    """Return whether a terminal would not show a letter as such: control characters, half of one, another direction."""
    return unicodedata.category(letter) in ("Cc", "Cs") or unicodedata.bidirectional(letter) in _REORDERING


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in unicodedata.normalize("NFC", name).split("/") if part not in ("", "."))


def _has_outer_folder(images: list[tuple[str, tuple[str, ...]]]) -> bool:
    tops = {parts[0] for _, parts in images}
    return len(tops) == 1 and all(len(parts) >= 3 for _, parts in images) and not tops & SPLITS
