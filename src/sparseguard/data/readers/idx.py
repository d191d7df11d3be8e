"""Reading of IDX files, the format of MNIST and its relatives, gzip-compressed or not.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "file formats".
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparseguard.core.errors import DataError

Bytes = npt.NDArray[np.uint8]

LARGEST = 1 << 28
"""A file that declares more bytes than this is refused (five times MNIST's largest)."""

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


def read_images(path: Path) -> Bytes:
    """Read images: ``(n, h, w)`` uint8.

    Args:
        path: an IDX file with three dimensions; its first bytes say whether it is compressed.

    Raises:
        DataError: when the file is missing or unreadable, or is anything but a complete IDX file of unsigned bytes.
    """
    return _read(path, dimensions=3)


def read_labels(path: Path) -> Bytes:
    """Read labels: ``(n,)`` uint8.

    Args:
        path: an IDX file with one dimension; its first bytes say whether it is compressed.

    Raises:
        DataError: when the file is missing or unreadable, or is anything but a complete IDX file of unsigned bytes.
    """
    return _read(path, dimensions=1)


def _read(path: Path, *, dimensions: int) -> Bytes:
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file, expected an IDX file.")
        with path.open("rb") as file:
            compressed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            if not compressed:
                return _parse(file, path, dimensions)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _parse(unpacked, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}). Check its rights, or get the file again.") from None


def _parse(stream: io.BufferedIOBase, path: Path, dimensions: int) -> Bytes:
    shape = _header(stream, path, dimensions)
    declared = math.prod(shape)
    shown = " x ".join(f"{size:,}" for size in shape)
    if not 0 < declared <= LARGEST:
        raise DataError(f"{path}: its header declares {shown} bytes, expected 1 to {LARGEST:,}. It is damaged.")
    content = _at_most(stream, declared + 1)
    if len(content) != declared:
        actual = "more" if len(content) > declared else f"only {len(content):,}"
        raise DataError(
            f"{path}: its header declares {shown} = {declared:,} bytes, found {actual}. Get the file again."
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _header(stream: io.BufferedIOBase, path: Path, dimensions: int) -> tuple[int, ...]:
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    magic = bytes(_at_most(stream, len(expected)))
    if magic != expected:
        kind = "images" if dimensions == 3 else "labels"
        raise DataError(
            f"{path}: not an IDX file of {kind} (unsigned bytes, {dimensions}-dimensional): it starts with "
            f"'{magic.hex(' ')}', expected '{expected.hex(' ')}'. Get the file again, or check its name."
        )
    sizes = _at_most(stream, 4 * dimensions)
    if len(sizes) != 4 * dimensions:
        raise DataError(f"{path}: ends within its header. Get the file again.")
    return struct.unpack(f">{dimensions}I", sizes)


def _at_most(stream: io.BufferedIOBase, count: int) -> bytearray:
    """Read up to ``count`` bytes; memory grows with what is there, not with what was declared."""
    content = bytearray()
    while len(content) < count and (chunk := stream.read(min(_CHUNK, count - len(content)))):
        content += chunk
    return content
