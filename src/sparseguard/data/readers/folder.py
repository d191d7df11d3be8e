"""Images in class folders on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from sparseguard.core.errors import DataError
from sparseguard.data.readers.base import LARGEST_FILE, Item, Notes, Source
from sparseguard.data.readers.class_folders import File, check_name, group_by_class


class FolderSource(Source):
    """Class folders ``<class>/<image>``, see `sparseguard.data.readers.class_folders`. Links inside are not followed.

    Args:
        path: the folder around the classes.

    Raises:
        DataError: when there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        if not path.is_dir():
            raise DataError(f"{path}: no such folder.")
        self._path = path
        self._items: list[Item] = []

    def items(self) -> list[Item]:
        """Return all images, by class and name."""
        files, folders, notes = self._walk()
        grouped = group_by_class(files, folders, self._path)
        self.classes, self._items = grouped.classes, grouped.items
        self.notes = grouped.notes | notes.by_reason
        return grouped.items

    def read(self, item: Item) -> bytes:
        """Return the file's bytes."""
        try:
            with (self._path / item.name).open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise DataError(f"{self._path / item.name}: cannot be read ({error.strerror}).") from None
        if len(content) > LARGEST_FILE:
            raise DataError(f"{self._path / item.name}: larger than {LARGEST_FILE:,} bytes.")
        return content

    def checksums(self) -> dict[str, str]:
        """Return one SHA-256 over names and contents of all images, in their order."""
        digest = hashlib.sha256()
        for item in self._items or self.items():
            digest.update(hashlib.sha256(item.name.encode()).digest())
            digest.update(hashlib.sha256(self.read(item)).digest())
        return {str(self._path): digest.hexdigest()}

    def key(self) -> str:
        """Return a hash of names, sizes and times of change; contents are not read."""
        digest = hashlib.sha256(str(self._path.resolve()).encode())
        files, _, _ = self._walk()
        for file in sorted(files, key=lambda file: file.name):
            changed = (self._path / file.name).stat().st_mtime_ns
            digest.update(f"{file.name}\0{file.size}\0{changed}\0".encode())
        return digest.hexdigest()

    def _walk(self) -> tuple[list[File], list[str], Notes]:
        files: list[File] = []
        folders: list[str] = []
        notes = Notes()
        for name, entry in walk(self._path):
            check_name(name, self._path)
            if entry.is_symlink():
                notes.add("links, not followed", name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif entry.is_file(follow_symlinks=False):
                files.append(File(name=name, size=entry.stat().st_size))
            else:
                notes.add("neither files nor folders", name)
        return files, folders, notes


def walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield everything below a folder, with its name relative to it; links are not followed.

    Raises:
        DataError: when a folder cannot be listed.
    """
    left = [str(folder)]
    while left:
        here = left.pop()
        try:
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{here}: cannot be listed ({error.strerror}). Check its rights.") from None
        for entry in entries:
            yield Path(entry.path).relative_to(folder).as_posix(), entry
        left += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
