"""Opening of images of any kind by what lies at a path."""

from __future__ import annotations

from pathlib import Path

from sparseguard.data.readers.archive import open_images
from sparseguard.data.readers.arrays import ArraySource
from sparseguard.data.readers.base import Source
from sparseguard.data.readers.hugging_face import MARKS, HuggingFaceSource
from sparseguard.data.readers.parquet import ParquetSource
from sparseguard.data.readers.parquet_files import is_parquet


def open_source(path: Path) -> Source:
    """Open class folders, an archive of them, an ``.npz`` file, or a Hugging Face data set.

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
