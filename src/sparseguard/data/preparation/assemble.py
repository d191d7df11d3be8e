"""Assembly of decoded chunks into a prepared set: splits one after the other, labels, names and metadata."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparseguard.core.atomic_io import write_text
from sparseguard.core.errors import DataError
from sparseguard.data.preparation.chunk_store import Chunks, save_array
from sparseguard.data.preparation.duplicates import count_copies, first_splits
from sparseguard.data.readers.base import Item, Source
from sparseguard.data.split_ranges import assign_splits, row_ranges, split_percentages
from sparseguard.data.splits import Index, Layout

IMAGES, LABELS, NAMES, METADATA = "images.npy", "labels.npy", "names.json", "prepared.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class SetWriter:
    """Writer of a prepared set from its decoded chunks.

    Args:
        source: of the images.
        items: its images.
        chunks: all of them decoded.
        shape: height, width and channels of all images.
        remove_duplicates: keep an image only in the first split that holds it.
    """

    source: Source
    items: Sequence[Item]
    chunks: Chunks
    shape: tuple[int, int, int]
    remove_duplicates: bool

    def write(self, folder: Path, metadata: dict[str, Any]) -> None:
        """Write the prepared files.

        Args:
            folder: exists, empty.
            metadata: content of ``prepared.json``; splits, duplicates and notes are added.

        Raises:
            DataError: when a class has no readable image, or a split is left empty.
        """
        rows = self.chunks.rows()
        index, digests = rows["place"], rows["digest"]
        labels = np.fromiter((self.items[number].label for number in index), dtype=np.int64, count=len(index))
        check_class_counts(labels, self.source, metadata["layout"], self._skipped(index))
        splits = self._assign(index, labels, metadata["layout"])
        split_of, notes = _split_of(splits), self._notes()
        duplicates = count_copies(digests, split_of, labels, list(splits))
        if self.remove_duplicates:
            first = first_splits(digests, split_of) == split_of
            notes["copies of images in an earlier split, removed"] = [self.items[k].name for k in index[~first]]
            splits = {split: rows_of_split[first[rows_of_split]] for split, rows_of_split in splits.items()}
        notes |= self._missing_classes(labels, splits) | _similar_names(self.source.classes)
        if metadata["whole"] not in (None, len(self.items)):
            notes[f"not the whole set of {metadata['whole']:,} images"] = [f"{len(self.items):,} images"]
        metadata |= {
            "duplicates": duplicates | {"removed": self.remove_duplicates},
            "parts": row_ranges({split: len(indices) for split, indices in splits.items()}, metadata["layout"]),
            "notes": {reason: sorted(names) for reason, names in sorted(notes.items()) if names},
            "source_images": len(self.items),
        }
        _check_splits(metadata, len(index), sum(map(len, splits.values())))
        order = np.concatenate(list(splits.values()))
        self._write_images(folder / IMAGES, order, len(index))
        save_array(folder / LABELS, labels[order])
        write_text(folder / NAMES, json.dumps([self.items[k].name for k in index[order]]))
        write_text(folder / METADATA, json.dumps(metadata, indent=1))

    def _skipped(self, index: Index) -> dict[str, list[str]]:
        decoded = set(index.tolist())
        skipped = {item.name for number, item in enumerate(self.items) if number not in decoded}
        notes = _merge_notes(self.chunks.notes()) if skipped else {}
        by_reason = {reason: [name for name in names if name in skipped] for reason, names in notes.items()}
        return {reason: names for reason, names in by_reason.items() if names}

    def _notes(self) -> dict[str, list[str]]:
        notes = _merge_notes([self.source.notes, *self.chunks.notes()])
        if first := self.chunks.fact("size_from"):
            height, width, _ = self.shape
            notes[f"no size asked for, so all have the first image's, {height} x {width}"] = [first]
        return notes

    def _assign(self, index: Index, labels: Index, layout: Layout) -> dict[str, Index]:
        sort = np.argsort(index)
        groups = [self.items[number].group for number in index[sort]]
        in_all = self.source.classes_in_all_splits
        splits = assign_splits(labels[sort], groups, layout, classes_in_all_splits=in_all)
        return {split: sort[indices] for split, indices in splits.items()}

    def _missing_classes(self, labels: Index, splits: Mapping[str, Index]) -> dict[str, list[str]]:
        classes = self.source.classes
        counts = {split: np.bincount(labels[indices], minlength=len(classes)) for split, indices in splits.items()}
        return {
            f"classes without an image in split {split}": [classes[k] for k in np.flatnonzero(count == 0)]
            for split, count in counts.items()
        }

    def _write_images(self, path: Path, order: Index, count: int) -> None:
        height, width, channels = self.shape
        row_of = np.full(count, -1, dtype=np.int64)
        row_of[order] = np.arange(len(order))
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(order), channels, height, width)}
        with path.open("wb") as file:  # a map that is written to on a full disk would end the process
            np.lib.format.write_array_header_1_0(file, header)
            start, offset = 0, file.tell()
            for pixels in self.chunks.pixels():
                for row, image in zip(row_of[start : start + len(pixels)].tolist(), pixels, strict=True):
                    if row >= 0:
                        file.seek(offset + row * image.size)
                        file.write(np.ascontiguousarray(image.transpose(2, 0, 1)).data)
                start += len(pixels)


def check_class_counts(
    labels: Index, source: Source, layout: Layout, skipped: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Refuse images among which a class has none, or too few to be in all splits where it must be.

    Args:
        labels: ``(n,)`` of the images.
        source: of the images.
        layout: of the splits.
        skipped: names of the images that were left out, by the reason.

    Raises:
        DataError: naming the class with the fewest images.
    """
    counts = np.bincount(labels, minlength=len(source.classes))
    least = len(split_percentages(layout)) if source.classes_in_all_splits else 1
    if (counts < least).any():
        name, fewest = source.classes[int(np.argmin(counts))], int(counts.min())
        kind = " that can be read" if skipped else ""
        has = f"{fewest} images{kind}, needs {least}, one for each split" if fewest else f"no image{kind}"
        reasons = [f"{reason}: {len(names):,}, e.g. {names[0]!r}" for reason, names in (skipped or {}).items()]
        shown = f" (left out in all: {'; '.join(reasons)})" if reasons else ""
        raise DataError(f"class '{name}' has {has}{shown}.{source.advice}")


def _check_splits(metadata: Mapping[str, Any], decoded: int, remaining: int) -> None:
    """Refuse a set of which a split is empty."""
    if empty := [split for split, (start, end) in metadata["parts"].items() if start == end]:
        removed = decoded - remaining
        without = f" without the {removed:,} copies that were removed" if removed else ""
        raise DataError(
            f"{metadata['name']}: split '{empty[0]}' is empty; {remaining:,} images{without} are too few to be split. "
            "Add images."
        )


def _similar_names(classes: Sequence[str]) -> dict[str, list[str]]:
    """Note classes whose names look the same."""
    by_appearance: dict[str, list[str]] = {}
    for name in classes:
        shown = "".join(letter for letter in name.casefold() if unicodedata.category(letter) not in ("Cf", "Zs"))
        by_appearance.setdefault(shown, []).append(name)
    alike = [name for names in by_appearance.values() if len(names) > 1 for name in names]
    return {"classes that differ only in case, spaces or invisible letters": alike}


def _split_of(splits: Mapping[str, Index]) -> Index:
    split_of = np.empty(sum(map(len, splits.values())), dtype=np.int64)
    for number, indices in enumerate(splits.values()):
        split_of[indices] = number
    return split_of


def _merge_notes(notes: Iterable[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for by_reason in notes:
        for reason, names in by_reason.items():
            merged.setdefault(reason, []).extend(names)
    return merged
