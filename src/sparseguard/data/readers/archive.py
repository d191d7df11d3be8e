"""Images in class folders inside a tar, tar.gz or zip archive. Archives are read and never extracted."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from sparseguard.core.errors import DataError
from sparseguard.data.readers.base import LARGEST_FILE, Content, Item, Notes, Source
from sparseguard.data.readers.class_folders import ClassFolders, File, check_name, group_by_class
from sparseguard.data.readers.folder import FolderSource

MOST_MEMBERS = 10_000_000
BOMB_RATIO = 200
BOMB_SIZE = 1 << 28
"""An archive that unpacks to more than `BOMB_SIZE` bytes and `BOMB_RATIO` times its own size is refused."""

_BLOCK = 512
_LARGEST_TAIL = 1 << 20
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, ValueError, LookupError, RuntimeError),
)
"""Exceptions of tarfile and zipfile over damaged archives."""


def open_images(path: Path) -> Source:
    """Open a folder or archive of class folders; an archive's first bytes say its kind.

    Raises:
        DataError: when there is nothing at ``path``, or it is no folder and no archive that can be read.
    """
    if path.is_dir():
        return FolderSource(path)
    with _explain_errors(path):
        if not path.is_file():
            raise DataError(f"{path}: no such folder or archive.")
        return ZipSource(path) if zipfile.is_zipfile(path) else TarSource(path)


class ArchiveSource(Source):
    """An archive file, see `sparseguard.data.readers.class_folders.group_by_class` for the folders inside."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._most_unpacked = max(BOMB_SIZE, BOMB_RATIO * path.stat().st_size)

    def items(self) -> list[Item]:
        """Return all images, by class and name."""
        notes = Notes()
        with _explain_errors(self._path):
            grouped = self._group(notes)
        self.classes = grouped.classes
        self.notes = grouped.notes | notes.by_reason
        return grouped.items

    def checksums(self) -> dict[str, str]:
        """Return the archive's SHA-256."""
        with _explain_errors(self._path), self._path.open("rb") as file:
            return {self._path.name: hashlib.file_digest(file, "sha256").hexdigest()}

    @abstractmethod
    def _group(self, notes: Notes) -> ClassFolders:
        """Return the members by class, noting those that are left out."""

    def _check_size(self, unpacked: int) -> None:
        if unpacked > self._most_unpacked:
            raise DataError(
                f"{self._path}: unpacks to more than {BOMB_RATIO} times its size, as decompression bombs do. "
                "Unpack it yourself and give the folder if it is what you expect."
            )


class TarSource(ArchiveSource):
    """A tar archive, compressed by gzip or not, read from beginning to end."""

    def _group(self, notes: Notes) -> ClassFolders:
        files: list[File] = []
        folders: list[str] = []
        with self._opened() as tar:
            for member in self._group_members(tar):
                name = member.name
                check_name(name, self._path)
                if member.isdir():
                    folders.append(name)
                elif member.isreg() and not member.issparse():
                    files.append(File(name=name, size=member.size))
                else:
                    notes.add("links, devices and the like", name)
        return group_by_class(files, folders, self._path)

    def read(self, item: Item) -> bytes:
        """Return one image; the archive is read up to it."""
        _, content = next(self.stream([item]))
        if isinstance(content, DataError):
            raise content
        return cast(bytes, content)

    def stream(self, items: Sequence[Item], start: int = 0) -> Iterator[tuple[int, Content | DataError]]:
        """Yield index in ``items`` and bytes, in the archive's order."""
        index_of = {item.name: index for index, item in enumerate(items)}
        count = 0
        with _explain_errors(self._path), self._opened() as tar:
            for member in self._group_members(tar):
                if member.name not in index_of or not member.isreg():
                    continue
                count += 1
                if count > start:
                    inside = tar.extractfile(member)
                    content = inside.read() if inside else b""
                    if len(content) != member.size:
                        raise DataError(f"{self._path}: ends within {member.name!r}. Get the file again.")
                    yield index_of[member.name], content
        if count != len(items):
            raise DataError(f"{self._path}: changed while it was read. Run the same again.")

    @contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        with self._path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            guard = _Guard(gzip.GzipFile(fileobj=file) if packed else file, self._path)
            with tarfile.open(fileobj=cast("IO[bytes]", guard), mode="r:") as tar:
                yield tar

    def _group_members(self, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        guard = cast(_Guard, tar.fileobj)
        for _ in range(MOST_MEMBERS):
            member = tar.next()
            if member is None:
                guard.check_end()
                return
            self._check_size(tar.offset)
            tar.members.clear()  # type: ignore[attr-defined]
            yield member
        raise DataError(f"{self._path}: has more than {MOST_MEMBERS:,} members.")


class ZipSource(ArchiveSource):
    """A zip archive."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._zip = zipfile.ZipFile(path)

    def _group(self, notes: Notes) -> ClassFolders:
        return group_by_class(*self._walk(notes), self._path)

    def _walk(self, notes: Notes) -> tuple[list[File], list[str]]:
        """Return all files and the names of all folders, noting what is neither."""
        members = self._zip.infolist()
        self._check_size(sum(member.file_size for member in members))
        if len(members) > MOST_MEMBERS:
            raise DataError(f"{self._path}: has more than {MOST_MEMBERS:,} members.")
        files: list[File] = []
        folders: list[str] = []
        for member in members:
            check_name(member.filename, self._path)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                folders.append(member.filename)
            elif kind not in (0, stat.S_IFREG):
                notes.add("links, devices and the like", member.filename)
            elif member.flag_bits & 1:
                raise DataError(f"{self._path}: {member.filename!r} is encrypted. Unpack it and give the folder.")
            else:
                files.append(File(name=member.filename, size=member.file_size))
        return files, folders

    def read(self, item: Item) -> bytes:
        """Return one image; its checksum in the archive is checked."""
        try:
            with self._zip.open(item.name) as file:
                content = file.read(LARGEST_FILE + 1)
        except _BROKEN as error:
            raise DataError(f"{self._path}: {item.name!r} cannot be read ({error}).") from None
        if len(content) > LARGEST_FILE:
            raise DataError(f"{self._path}: {item.name!r} is larger than {LARGEST_FILE:,} bytes.")
        return content

    def close(self) -> None:
        """Close the file."""
        self._zip.close()


class _Guard:
    """A stream that tarfile reads from: no single read of unlimited size, and the last block is remembered."""

    def __init__(self, stream: io.BufferedIOBase, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._last = b""
        self._place = 0

    def read(self, size: int) -> bytes:
        if not 0 <= size <= LARGEST_FILE:
            raise DataError(f"{self._path}: a header declares {size:,} bytes, at most {LARGEST_FILE:,} are read.")
        self._last = self._stream.read(size)
        self._place += len(self._last)
        return self._last

    def seek(self, offset: int) -> int:
        if offset < self._place:
            raise DataError(f"{self._path}: a member's size is negative. Get the file again.")
        if offset > self._place:
            self._place = self._stream.seek(offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def check_end(self) -> None:
        """Refuse an archive that does not end as one: tarfile takes a damaged header for the end.

        What lies behind is read too, so that gzip compares its checksum.
        """
        if self._last != bytes(_BLOCK):
            raise DataError(f"{self._path}: damaged or incomplete near byte {self.tell():,}. Get the file again.")
        tail = 0
        while chunk := self._stream.read(_LARGEST_TAIL):
            tail += len(chunk)
            if chunk.strip(b"\0") or tail > _LARGEST_TAIL:
                raise DataError(f"{self._path}: has more data behind its end. Get the file again.")


@contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise DataError(
            f"{path}: no folder and no tar, tar.gz or zip archive that can be read ({error}). Get the file again, or "
            "unpack it and give the folder."
        ) from None
