"""Datasets that Hugging Face's `datasets` saved to disk. Nothing is fetched, and no code of theirs is run."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

from sparseguard.core.errors import DataError
from sparseguard.data.readers.base import Item, Notes, Source
from sparseguard.data.readers.class_folders import check_name

MARKS = ("dataset_dict.json", "dataset_info.json")
"""One of these files is in every folder that ``save_to_disk`` wrote."""


class HuggingFaceSource(Source):
    """A dataset saved by ``save_to_disk``, with one column of images and one of class labels.

    All its splits are merged. The classes are numbered as the dataset numbers them.

    Args:
        path: the folder.

    Raises:
        DataError: when `datasets` is not installed, the folder cannot be read, or its columns are not as they must be.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        library = import_library("datasets", path)
        self._path = path
        try:
            loaded = library.load_from_disk(str(path.absolute()))
        except Exception as error:  # pyarrow and datasets have their own
            raise DataError(f"{path}: no Hugging Face dataset that can be read ({error}). Save it again.") from None
        splits: dict[str, Any] = dict(loaded) if isinstance(loaded, dict) else {"": loaded}
        columns = {split: _columns(rows, path) for split, rows in splits.items()}
        if len(set(map(repr, columns.values()))) != 1:
            raise DataError(f"{path}: its splits differ in columns or classes ({columns}). Save them as one.")
        self._image, self._label, self.classes = next(iter(columns.values()))
        for name in self.classes:
            check_name(name, path)
        undecoded = library.Image(decode=False)
        self._splits = {
            split: rows.select_columns([self._image, self._label]).with_format(None).cast_column(self._image, undecoded)
            for split, rows in sorted(splits.items())
        }

    def items(self) -> list[Item]:
        """Return all images that have a label, split by split; the others are noted."""
        notes, items = Notes(), list[Item]()
        for split, rows in self._splits.items():
            for index, label in enumerate(rows[self._label]):
                name = f"{split}/{index:09d}" if split else f"{index:09d}"
                if label is None or not 0 <= label < len(self.classes):
                    notes.add("without a label", name)
                else:
                    items.append(Item(name=name, label=int(label)))
        self.notes = notes.by_reason
        return items

    def read(self, item: Item) -> bytes:
        """Return the encoded image; files outside the dataset are not opened."""
        split, _, index = item.name.rpartition("/")
        try:
            cell = self._splits[split][int(index)][self._image]
        except Exception as error:  # of pyarrow, over damaged files
            raise DataError(f"{self._path}: row {item.name} cannot be read ({error}). Save it again.") from None
        content = cell and cell["bytes"]
        if not isinstance(content, bytes):
            raise DataError(f"{self._path}: row {item.name} holds no image. Save the dataset with its images.")
        return content

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of every file of the dataset."""
        checksums = {}
        for file in sorted(file for file in self._path.rglob("*") if file.is_file()):
            with file.open("rb") as opened:
                checksums[file.relative_to(self._path).as_posix()] = hashlib.file_digest(opened, "sha256").hexdigest()
        return checksums


def import_library(module: str, path: Path) -> Any:
    """Import `datasets`, or a module it needs, to read ``path``.

    Raises:
        DataError: when it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(
            f'{path}: a Hugging Face dataset needs its library. Run: pip install "sparseguard[huggingface]"'
        ) from None


def _columns(rows: Any, path: Path) -> tuple[str, str, tuple[str, ...]]:
    """Return the names of the column of images and of that of labels, and the classes."""
    images, labels = (
        [name for name, kind in rows.features.items() if type(kind).__name__ == wanted]
        for wanted in ("Image", "ClassLabel")
    )
    if len(images) != 1 or len(labels) != 1:
        raise DataError(
            f"{path}: needs one Image and one ClassLabel column, got {images} and {labels}. Remove or cast columns."
        )
    return images[0], labels[0], tuple(rows.features[labels[0]].names)
