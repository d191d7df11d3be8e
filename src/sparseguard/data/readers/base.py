"""Interface of a source of images: an opened folder, archive or array file."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from sparseguard.core.errors import DataError

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
        group: images of one group stay in one split; empty: each its own group.
    """

    name: str
    label: int
    group: str = ""


class Notes:
    """Images left out or converted: reason -> names of the images."""

    def __init__(self) -> None:
        self.by_reason: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Note one image."""
        self.by_reason.setdefault(reason, []).append(name)


def describe_skipped(notes: Mapping[str, Sequence[str]]) -> str:
    """Return what notes say of images, as the end of a message; empty where they say nothing."""
    reasons = [f"{len(names):,} {reason}, e.g. {names[0]!r}" for reason, names in notes.items()]
    return f" Left out: {'; '.join(reasons)}." if reasons else ""


class Source(ABC):
    """An opened folder, archive or array file; a context manager.

    `classes`, `notes`, `classes_in_all_splits` (whether every split must have every class, whatever its size) and
    `advice` (what to do when a class has no image) are complete once `items` was called.
    """

    def __init__(self) -> None:
        self.classes: tuple[str, ...] = ()
        self.notes: dict[str, list[str]] = {}
        self.classes_in_all_splits = False
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
        """Return a key that differs between sources, without reading their images; it changes when files do."""
        return hashlib.sha256(json.dumps(self.checksums(), sort_keys=True).encode()).hexdigest()

    def stream(self, items: Sequence[Item], start: int = 0) -> Iterator[tuple[int, Content | DataError]]:
        """Yield index in ``items`` and content of every image, in the order in which they are read fastest.

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
        """Close open files."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
