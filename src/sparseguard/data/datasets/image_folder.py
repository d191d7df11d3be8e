"""Your own images: class folders, an archive of them, arrays, or a Hugging Face dataset's folder."""

from __future__ import annotations

import hashlib
import math
import unicodedata
import zipfile
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from sparseguard.core.config import settings
from sparseguard.core.errors import DataError
from sparseguard.data.preparation.decode_image import Look
from sparseguard.data.preparation.prepared_dataset import PreparedSet
from sparseguard.data.readers.archive import open_images
from sparseguard.data.readers.base import Bytes, Item, Source
from sparseguard.data.readers.class_folders import check_name
from sparseguard.data.readers.hugging_face import MARKS, HuggingFaceSource
from sparseguard.data.readers.parquet import ParquetSource
from sparseguard.data.readers.parquet_files import is_parquet

_Side = Annotated[int, pydantic.Field(ge=1, le=4096)]
_ALIGNED = 16


@settings
class OwnImages(PreparedSet):
    """Your own images; classes are the sorted names of folders, or of labels, or in a Hugging Face dataset's own order.

    Args:
        path: class folders (``<class>/<image>``), a tar, tar.gz or zip of them, an ``.npz`` file with ``images``
            (``(n, h, w)`` or ``(n, h, w, c)`` uint8) and ``labels`` (``(n,)`` integers or strings), or a Hugging Face
            dataset, all splits of which are merged: the folder that ``save_to_disk`` wrote, parquet files as
            downloaded from the hub, or one of them.
        size: height and width in pixels; None: that of the first image, which all others must have.
        channels: 1 grey, 3 colour.
        crop: side in pixels of the square kept from the middle before resizing; 0: none.
        flips_keep_class: whether the mirror image of every image belongs to the same class; say false for digits,
            letters, or scans whose side matters.
    """

    name: ClassVar[str] = "images"
    revision: ClassVar[int] = 2
    summary: ClassVar[str] = (
        "your own images: class folders or an archive of them, .npz arrays, a Hugging Face dataset."
    )
    paper_name: ClassVar[str | None] = None
    classes: ClassVar[tuple[str, ...]] = ()

    size: tuple[_Side, _Side] | None = None
    channels: Literal[1, 3] = 3
    crop: Annotated[int, pydantic.Field(ge=0)] = 0
    flips_keep_class: bool = True  # type: ignore[misc]

    def _source(self, path: Path) -> Source:
        return open_own(path)

    def _look(self) -> Look:
        return Look(size=self.size, channels=self.channels, crop=self.crop)


def open_own(path: Path) -> Source:
    """Open images of any kind that `OwnImages` takes.

    Raises:
        DataError: when there is nothing at ``path`` or it is none of them.
    """
    if path.suffix.lower() == ".npz" and path.is_file():
        return ArraySource(path)
    if path.is_dir() and any((path / name).is_file() for name in MARKS):
        return HuggingFaceSource(path)
    if is_parquet(path):
        return ParquetSource(path)
    return open_images(path)


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
                f"{_way_out(images)}"
            )
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iuU":
            raise DataError(
                f"{path}: {len(images):,} images need as many labels, integers or strings, "
                f"got {labels.dtype} {labels.shape}, expected ({len(images)},)."
            )
        self.classes, self._labels = _numbered(labels, path)

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
        there = [member.removesuffix(".npy") for member in archive.namelist()]
        if name not in there:
            raise ValueError(f"has no array '{name}', only {', '.join(map(ascii, there[:10])) or 'none'}")
        info = archive.getinfo(f"{name}.npy")
        if info.file_size > max(1 << 30, 200 * info.compress_size):
            raise DataError(f"{path}: '{name}' unpacks to more than 200 times its size. Write it again uncompressed.")
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            inside = file.tell()
        if dtype.hasobject:
            raise ValueError(f"'{name}' is pickled")
        if math.prod(shape) * dtype.itemsize != info.file_size - inside:
            raise ValueError(f"'{name}' declares another size than it has")
        if info.compress_type == zipfile.ZIP_STORED:
            with path.open("rb") as raw:
                raw.seek(info.header_offset + 26)
                lengths = np.frombuffer(raw.read(4), dtype="<u2")
            start = info.header_offset + 30 + int(lengths.sum()) + inside
            return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order="F" if fortran else "C")
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[name])


def _numbered(labels: npt.NDArray[Any], path: Path) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return class names in order, and each label's place among them."""
    if labels.dtype.kind == "U":
        labels = np.array([unicodedata.normalize("NFC", label) for label in labels.tolist()])
    values, places = np.unique(np.asarray(labels), return_inverse=True)
    if not len(values):
        raise DataError(f"{path}: holds no images.")
    names = tuple(str(value) for value in values)
    for name in names:
        check_name(name, path)
    return names, places.astype(np.int64)


def _way_out(images: npt.NDArray[Any]) -> str:
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        return " Move the channels to the end."
    return " Scale them to 0 to 255, round, and convert them to uint8." if images.dtype != np.uint8 else ""
