"""Images and labels in an ``.npz`` file."""

from __future__ import annotations

import hashlib
import math
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseguard.core.errors import DataError
from sparseguard.data.readers.base import Bytes, Item, Source
from sparseguard.data.readers.class_folders import check_name


class ArraySource(Source):
    """An ``.npz`` file with ``images`` and ``labels``, mapped into memory where it is not compressed.

    Raises:
        DataError: when the arrays are missing, of another form, or pickled.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        try:
            self._images = _array(path, "images")
            labels = _array(path, "labels")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError, RuntimeError, SyntaxError) as error:
            raise DataError(f"{path}: {error}. It needs the arrays 'images' and 'labels', not pickled.") from None
        except Exception as error:  # numpy's parser of headers raises what damaged bytes make of it
            raise DataError(f"{path}: damaged ({error}). Write it again.") from None
        images = self._images
        grey_or_colour = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
        if images.dtype != np.uint8 or not grey_or_colour:
            raise DataError(
                f"{path}: images must be uint8 (n, h, w) or (n, h, w, 1 or 3), got {images.dtype} {images.shape}."
                f"{_advice(images)}"
            )
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iuU":
            raise DataError(
                f"{path}: {len(images):,} images need as many labels, integers or strings, "
                f"got {labels.dtype} {labels.shape}, expected ({len(images)},)."
            )
        self.classes, self._labels = _number_labels(labels, path)

    def items(self) -> list[Item]:
        """Return all images in the array's order."""
        return [Item(name=f"image {index:09d}", label=int(label)) for index, label in enumerate(self._labels)]

    def read(self, item: Item) -> Bytes:
        """Return the pixels."""
        return np.array(self._images[int(item.name.split()[1])])

    def checksums(self) -> dict[str, str]:
        """Return the file's SHA-256."""
        with self._path.open("rb") as file:
            return {self._path.name: hashlib.file_digest(file, "sha256").hexdigest()}


def _array(path: Path, name: str) -> npt.NDArray[Any]:
    """Return an array of an ``.npz`` file: mapped where it is stored plainly, else read; a bomb is refused."""
    with zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
        if name not in names:
            raise ValueError(f"has no array '{name}', only {', '.join(map(ascii, names[:10])) or 'none'}")
        info = archive.getinfo(f"{name}.npy")
        if info.file_size > max(1 << 30, 200 * info.compress_size):
            raise DataError(f"{path}: '{name}' unpacks to more than 200 times its size. Write it again uncompressed.")
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            header_size = file.tell()
        if dtype.hasobject:
            raise ValueError(f"'{name}' is pickled")
        if math.prod(shape) * dtype.itemsize != info.file_size - header_size:
            raise ValueError(f"'{name}' declares another size than it has")
        if info.compress_type == zipfile.ZIP_STORED:
            with path.open("rb") as raw:
                raw.seek(info.header_offset + 26)
                lengths = np.frombuffer(raw.read(4), dtype="<u2")
            start = info.header_offset + 30 + int(lengths.sum()) + header_size
            return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order="F" if fortran else "C")
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[name])


def _number_labels(labels: npt.NDArray[Any], path: Path) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return class names in order, and each label's index among them."""
    if labels.dtype.kind == "U":
        labels = np.array([unicodedata.normalize("NFC", label) for label in labels.tolist()])
    values, indices = np.unique(np.asarray(labels), return_inverse=True)
    if not len(values):
        raise DataError(f"{path}: holds no images.")
    names = tuple(str(value) for value in values)
    for name in names:
        check_name(name, path)
    return names, indices.astype(np.int64)


def _advice(images: npt.NDArray[Any]) -> str:
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        return " Move the channels to the end."
    return " Scale them to 0 to 255, round, and convert them to uint8." if images.dtype != np.uint8 else ""
