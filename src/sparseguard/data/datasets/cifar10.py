"""CIFAR-10: 60,000 colour images of ten kinds of things."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import pydantic

from sparseguard.core.config import settings
from sparseguard.core.errors import DataError
from sparseguard.data.cache import cache_folder
from sparseguard.data.preparation.decode_image import ImageFormat
from sparseguard.data.preparation.prepared_dataset import PreparedSet
from sparseguard.data.readers.archive import TarSource, open_images
from sparseguard.data.readers.base import Content, Item, Source
from sparseguard.data.readers.cifar_batches import SIDE, Bytes, read_binary_batch, read_python_batch
from sparseguard.data.readers.folder import FolderSource

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Reader = Callable[[bytes, str], tuple[Bytes, Bytes]]
_NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_VERSIONS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "cifar-10-batches-py": (_NAMES, read_python_batch),
    "cifar-10-batches-bin": (tuple(f"{name}.bin" for name in _NAMES), read_binary_batch),
}
_ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "cifar10-jpeg.tar.gz")
_BLOCK, _HEAD = 512, 1 << 13


@settings
class Cifar10(PreparedSet):
    """All of CIFAR-10: 60,000 images, ``(3, 32, 32)``, 10 classes; training and test images are merged.

    Args:
        path: the official batches, python or binary, or class folders, see `open_cifar10`.
        download: when they are found nowhere, download the official archive with torchvision into the cache folder.

    Raises:
        pydantic.ValidationError: when both are given.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    name: ClassVar[str] = "cifar10"
    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "60,000 colour 32 x 32 images in 10 classes; the official batches or class folders."
    paper_name: ClassVar[str | None] = "CIFAR-10"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    flips_keep_class: ClassVar[bool] = True
    whole: ClassVar[int | None] = 60_000
    places: ClassVar[tuple[str, ...]] = ("cifar10", *_VERSIONS, *_ARCHIVES)

    download: bool = False

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> Cifar10:
        if self.path is not None and self.download:
            raise ValueError("path and download exclude each other; a download goes to the cache folder")
        return self

    def _source(self, path: Path) -> Source:
        return open_cifar10(path)

    def _image_format(self) -> ImageFormat:
        return ImageFormat(size=(SIDE, SIDE), channels=3)

    def _find_files(self) -> Path | None:
        path = super()._find_files()
        return _download() if path is None and self.download and not self._matching() else path


def open_cifar10(path: Path) -> Source:
    """Open CIFAR-10's official batches (python or binary) or class folders, as a folder or an archive.

    Args:
        path: the folder of the six batches, a folder that holds theirs, their archive, or class folders
            (``train|test/<class>/*``) or an archive of them. Where there are several, batches are taken.

    Raises:
        DataError: when there is none of these.
    """
    if not path.is_dir():
        root = _batches_in(path)
        return open_images(path) if root is None else BatchSource(TarSource(path), path, root, f"{root}/")
    for root, (names, _) in _VERSIONS.items():
        for folder in (path, path / root):
            if any((folder / name).is_file() for name in names):
                return BatchSource(FolderSource(folder), folder, root, "")
    for archive in _ARCHIVES:
        if (path / archive).is_file():
            return open_cifar10(path / archive)
    return FolderSource(path)


class BatchSource(Source):
    """CIFAR-10's six official batches; one of them is in memory at a time.

    Args:
        files: what they are read from.
        where: it, for messages.
        version: ``cifar-10-batches-py`` or ``cifar-10-batches-bin``.
        below: what stands before the batches' names in ``files``.
    """

    def __init__(self, files: Source, where: Path, version: str, below: str) -> None:
        super().__init__()
        self.classes = CLASSES
        self._files, self._where = files, where
        names, self._reader = _VERSIONS[version]
        self._batches = [Item(name=f"{below}{name}", label=0) for name in names]

    def items(self) -> list[Item]:
        """Return all images, by batch and row."""
        labels = {batch: self._reader(content, f"{self._where}: {batch}")[1] for batch, content in self._contents()}
        return [
            Item(name=_name(batch, row), label=int(label))
            for batch in sorted(labels)
            for row, label in enumerate(labels[batch])
        ]

    def read(self, item: Item) -> Content:
        """Return one image, ``(32, 32, 3)``; its whole batch is read."""
        return next(content for _, content in self.stream([item]) if isinstance(content, np.ndarray))

    def stream(self, items: Sequence[Item], start: int = 0) -> Iterator[tuple[int, Content | DataError]]:
        """Yield index in ``items`` and pixels, batch after batch."""
        index_of = {item.name: index for index, item in enumerate(items)}
        count = 0
        for batch, content in self._contents():
            pixels, _ = self._reader(content, f"{self._where}: {batch}")
            for row, image in enumerate(pixels):
                index = index_of.get(_name(batch, row))
                count += index is not None
                if index is not None and count > start:
                    yield index, image

    def checksums(self) -> dict[str, str]:
        """Return every batch's SHA-256."""
        return {batch: hashlib.sha256(content).hexdigest() for batch, content in self._contents()}

    def close(self) -> None:
        """Close the archive."""
        self._files.close()

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        try:
            for place, content in self._files.stream(self._batches):
                if isinstance(content, DataError):
                    raise content
                yield PurePosixPath(self._batches[place].name).name, bytes(content)
        except DataError as error:
            names = ", ".join(batch.name for batch in self._batches)
            raise DataError(f"{self._where}: needs {names}, each once ({error}) Get it again.") from None


def _name(batch: str, row: int) -> str:
    return f"{batch}/{row:05d}"


def _batches_in(path: Path) -> str | None:
    """Return which version a tar archive holds, if any: one of its first headers names the folder of the batches."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            head = (gzip.GzipFile(fileobj=file) if packed else file).read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return None
    headers = [head[start : start + _BLOCK] for start in range(0, len(head), _BLOCK)]
    return next((root for root in _VERSIONS for header in headers if header.startswith(f"{root}/".encode())), None)


def _download() -> Path:
    """Return the official python archive, downloaded by torchvision, which compares its MD5 with the published one."""
    try:
        published = importlib.import_module("torchvision.datasets").CIFAR10
        fetch = importlib.import_module("torchvision.datasets.utils").download_url
    except ImportError:
        raise DataError('cifar10: downloading needs torchvision. Run: pip install "sparseguard[download]"') from None
    try:
        fetch(published.url, str(cache_folder()), published.filename, published.tgz_md5)
    except (OSError, EOFError, RuntimeError, ValueError, HTTPException) as error:
        raise DataError(
            f"cifar10: the download to {cache_folder()} failed ({error}). Try again, or set path=."
        ) from error
    return cache_folder() / str(published.filename)
