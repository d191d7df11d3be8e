"""Images in parquet files, as Hugging Face's hub hands them out. Nothing is fetched, and no code of theirs is run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from sparseguard.core.errors import DataError
from sparseguard.data.readers.archive import BOMB_RATIO, BOMB_SIZE, MOST_MEMBERS
from sparseguard.data.readers.base import LARGEST_FILE, Content, Item, Notes, Source
from sparseguard.data.readers.class_folders import check_name
from sparseguard.data.readers.hugging_face import import_library
from sparseguard.data.readers.parquet_files import (
    Columns,
    choose_columns,
    explain_unreadable,
    find_parquet,
    missing_shards,
)

_IMAGES, _LABELS = 16, 1 << 16
"""Rows of a column that are in memory at a time."""

_BUFFER = 1 << 20
_ADVICE = (
    " The files name classes they have no image of. Add the files that are missing, or cast the label column to a "
    "ClassLabel of the classes that are there."
)


class ParquetSource(Source):
    """Parquet files with a column of encoded images and one of labels, see `choose_columns`; all files are merged.

    Classes are numbered as the files number them, or called by their numbers where they have no names.

    Args:
        path: a parquet file, or a folder of them.

    Raises:
        DataError: when `datasets` is not installed, a file cannot be read, files hold different data sets, or their
            columns are not as they must be.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._features = import_library("datasets", path).Features
        self._parquet = import_library("pyarrow.parquet", path)
        self._files, self._left_out = find_parquet(path)
        columns = {name: self._columns_of(file) for name, file in self._files.items()}
        self._columns = next(iter(columns.values()))
        for name, other in columns.items():
            if other != self._columns:
                raise DataError(
                    f"{path / name}: columns {other}, those of {next(iter(columns))} are {self._columns}. "
                    "Give files of one data set."
                )

    def items(self) -> list[Item]:
        """Return all images that have a label, file by file; the others are noted."""
        label_of = {
            f"{name}/{row:09d}": label
            for name, file in self._files.items()
            for row, label in enumerate(self._cells(file, self._columns.label, 0, _LABELS))
        }
        notes, named = Notes(), self._columns.classes
        numbers = list(range(len(named))) or sorted({n for n in label_of.values() if n is not None and n >= 0})
        if len(numbers) < 2 or (not named and len(numbers) == len(label_of)):
            raise DataError(
                f"{self._path}: column '{self._columns.label}' has {len(numbers):,} classes in {len(label_of):,} rows, "
                "need 2 or more of several images. Cast the column that holds the classes to a ClassLabel."
            )
        self.classes = named or tuple(map(str, numbers))
        class_of = {number: index for index, number in enumerate(numbers)}
        for name, label in label_of.items():
            if label not in class_of:
                notes.add("without a label", name)
        if not named:
            notes.add("columns without names of classes, which are called by their numbers", self._columns.label)
        self.notes = notes.by_reason | self._left_out | missing_shards(list(self._files))
        self.advice = _ADVICE
        return [Item(name=name, label=class_of[label]) for name, label in label_of.items() if label in class_of]

    def read(self, item: Item) -> Content:
        """Return the encoded image; a file that the row names is not opened."""
        _, content = next(self.stream([item]))
        if isinstance(content, DataError):
            raise content
        return content

    def stream(self, items: Sequence[Item], start: int = 0) -> Iterator[tuple[int, Content | DataError]]:
        """Yield index in ``items`` and encoded image, file by file and row by row."""
        for name, indices in groupby(range(start, len(items)), lambda index: items[index].name.rpartition("/")[0]):
            file = self._files[name]
            index_of = {int(items[index].name.rpartition("/")[2]): index for index in indices}
            first, last = min(index_of), max(index_of)
            left = _most_unpacked(file)
            for row, content in enumerate(self._cells(file, self._columns.image, first, _IMAGES), first):
                left -= len(content or b"")
                if left < 0:
                    raise _bomb(file)
                if row in index_of:
                    yield index_of[row], self._check(content, f"{name}/{row:09d}")
                if row == last:
                    break

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of every parquet file."""
        checksums = {}
        for name, file in self._files.items():
            with file.open("rb") as opened:
                checksums[name] = hashlib.file_digest(opened, "sha256").hexdigest()
        return checksums

    def _check(self, content: bytes | None, name: str) -> bytes | DataError:
        if content is None:
            return DataError(f"{self._path}: row {name} holds no image. Save the data set with its images.")
        if len(content) > LARGEST_FILE:
            return DataError(f"{self._path}: row {name} is larger than {LARGEST_FILE:,} bytes.")
        return content

    def _columns_of(self, file: Path) -> Columns:
        try:
            with self._parquet.ParquetFile(file) as opened:
                schema, metadata = opened.schema_arrow, opened.metadata
                unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        except Exception as error:  # pyarrow has its own
            raise explain_unreadable(file, error) from None
        try:
            features = self._features.from_arrow_schema(schema)
        except Exception as error:  # datasets raises whatever it stumbles over
            raise DataError(
                f"{file}: its features cannot be read ({error}). Update datasets, or save it again."
            ) from None
        if unpacked > _most_unpacked(file) or metadata.num_rows > MOST_MEMBERS:
            raise _bomb(file)
        if len(set(schema.names)) < len(schema.names):
            raise DataError(f"{file}: two columns have one name ({', '.join(schema.names)}). Rename one of them.")
        columns = choose_columns(features, file)
        for name in columns.classes:
            check_name(name, file)
        return columns

    def _cells(self, file: Path, column: str, first: int, rows: int) -> Iterator[Any]:
        """Yield the values of a column, or of the bytes in it, from row ``first`` on, reading ``rows`` at a time."""
        try:
            with self._parquet.ParquetFile(
                file, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True
            ) as opened:
                metadata = opened.metadata
                ends = list(accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))
                groups = [group for group, end in enumerate(ends) if end > first]
                skip = first - ends[groups[0] - 1] if groups and groups[0] else first
                for batch in opened.iter_batches(rows, row_groups=groups, columns=[column], use_threads=False):
                    values = batch.column(0)
                    inside = values.flatten()[0] if values.type.num_fields else values
                    for value in inside[skip:]:
                        yield value.as_py()
                    skip = max(0, skip - len(values))
        except Exception as error:  # of pyarrow, over damaged files
            raise explain_unreadable(file, error) from None


def _most_unpacked(file: Path) -> int:
    return max(BOMB_SIZE, BOMB_RATIO * file.stat().st_size)


def _bomb(file: Path) -> DataError:
    return DataError(
        f"{file}: unpacks to more than {BOMB_RATIO} times its size, or has more than {MOST_MEMBERS:,} rows, as "
        "decompression bombs do. Write it again without compression if it is what you expect."
    )
