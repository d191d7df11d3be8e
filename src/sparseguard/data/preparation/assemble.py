"""Gathers decoded chunks into a prepared set: parts one after the other, labels, names, and what is told of the set."""

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
from sparseguard.data.preparation.duplicates import Digests, count_copies, first_parts
from sparseguard.data.readers.base import Item, Source
from sparseguard.data.split_ranges import order_of_parts, ranges, shares_of
from sparseguard.data.splits import Index, Layout

IMAGES, LABELS, NAMES, ABOUT = "images.npy", "labels.npy", "names.json", "prepared.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathering:
    """Decoded chunks on their way into a prepared set.

    Args:
        source: what was decoded.
        items: its images.
        chunks: all of them decoded.
        shape: height, width and channels of all images.
        remove_duplicates: keep an image only in the first part that holds it.
    """

    source: Source
    items: Sequence[Item]
    chunks: Chunks
    shape: tuple[int, int, int]
    remove_duplicates: bool

    def write(self, folder: Path, about: dict[str, Any]) -> None:
        """Write the prepared files.

        Args:
            folder: exists, empty.
            about: what ``prepared.json`` tells; parts, duplicates and notes are added.

        Raises:
            DataError: when a class has no readable image, or a part is left empty.
        """
        rows = self.chunks.rows()
        index, digests = rows["place"], rows["digest"]
        notes, left_out = self._notes(), self._left_out(index)
        labels = np.fromiter((self.items[place].label for place in index), dtype=np.int64, count=len(index))
        check_every_class(labels, self.source, about["layout"], left_out)
        dealt = self._dealt(index, labels, about["layout"])
        about["duplicates"] = self._counted(digests, labels, dealt) | {"removed": self.remove_duplicates}
        if self.remove_duplicates:
            first = first_parts(digests, _part_of(dealt)) == _part_of(dealt)
            notes["copies of images in an earlier part, removed"] = [self.items[k].name for k in index[~first]]
            dealt = {part: places[first[places]] for part, places in dealt.items()}
        notes |= self._absent(labels, dealt) | _alike(self.source.classes)
        about["parts"] = ranges({part: len(places) for part, places in dealt.items()}, about["layout"])
        about["notes"] = {reason: sorted(names) for reason, names in sorted(notes.items()) if names}
        about["source_images"] = len(self.items)
        if about["whole"] not in (None, len(self.items)):
            about["notes"][f"not the whole set of {about['whole']:,} images"] = [f"{len(self.items):,} images"]
        if empty := [part for part, (start, end) in about["parts"].items() if start == end]:
            removed = len(index) - sum(map(len, dealt.values()))
            without = f" without the {removed:,} copies that were removed" if removed else ""
            raise DataError(
                f"{about['name']}: part '{empty[0]}' is empty; {len(index) - removed:,} images{without} are too few to "
                "be split. Add images."
            )
        order = np.concatenate(list(dealt.values()))
        self._write_images(folder / IMAGES, order, len(index))
        save_array(folder / LABELS, labels[order])
        write_text(folder / NAMES, json.dumps([self.items[k].name for k in index[order]]))
        write_text(folder / ABOUT, json.dumps(about, indent=1))

    def _left_out(self, index: Index) -> dict[str, list[str]]:
        decoded = set(index.tolist())
        names = {item.name for place, item in enumerate(self.items) if place not in decoded}
        found = _merged(self.chunks.notes()) if names else {}
        return {reason: left for reason, one in found.items() if (left := [name for name in one if name in names])}

    def _notes(self) -> dict[str, list[str]]:
        notes = _merged([self.source.notes, *self.chunks.notes()])
        if first := self.chunks.fact("size_from"):
            height, width, _ = self.shape
            notes[f"no size asked for, so all have the first image's, {height} x {width}"] = [first]
        return notes

    def _dealt(self, index: Index, labels: Index, layout: Layout) -> dict[str, Index]:
        sort = np.argsort(index)
        groups = [self.items[place].group for place in index[sort]]
        in_all = self.source.classes_in_all_parts
        dealt = order_of_parts(labels[sort], groups, layout, classes_in_all_parts=in_all)
        return {part: sort[places] for part, places in dealt.items()}

    def _absent(self, labels: Index, dealt: Mapping[str, Index]) -> dict[str, list[str]]:
        classes = self.source.classes
        found = {part: np.bincount(labels[places], minlength=len(classes)) for part, places in dealt.items()}
        return {
            f"classes without an image in part {part}": [classes[k] for k in np.flatnonzero(counts == 0)]
            for part, counts in found.items()
        }

    def _counted(self, digests: Digests, labels: Index, dealt: Mapping[str, Index]) -> dict[str, Any]:
        return count_copies(digests, _part_of(dealt), labels, list(dealt))

    def _write_images(self, path: Path, order: Index, count: int) -> None:
        height, width, channels = self.shape
        row_of = np.full(count, -1, dtype=np.int64)
        row_of[order] = np.arange(len(order))
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(order), channels, height, width)}
        with path.open("wb") as file:  # a map that is written to on a full disk would end the process
            np.lib.format.write_array_header_1_0(file, header)
            start, place = 0, file.tell()
            for pixels in self.chunks.pixels():
                for row, image in zip(row_of[start : start + len(pixels)].tolist(), pixels, strict=True):
                    if row >= 0:
                        file.seek(place + row * image.size)
                        file.write(np.ascontiguousarray(image.transpose(2, 0, 1)).data)
                start += len(pixels)


def check_every_class(
    labels: Index, source: Source, layout: Layout, left_out: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Refuse images among which a class has none, or too few to be in all parts where it must be.

    Args:
        labels: ``(n,)`` of the images.
        source: where they are from.
        layout: how they are to be parted.
        left_out: names of the images that were left out, by the reason.

    Raises:
        DataError: naming the class with the fewest images.
    """
    counts = np.bincount(labels, minlength=len(source.classes))
    least = len(shares_of(layout)) if source.classes_in_all_parts else 1
    if (counts < least).any():
        name, fewest = source.classes[int(np.argmin(counts))], int(counts.min())
        kind = " that can be read" if left_out else ""
        has = f"{fewest} images{kind}, needs {least}, one for each part" if fewest else f"no image{kind}"
        reasons = [f"{reason}: {len(names):,}, e.g. {names[0]!r}" for reason, names in (left_out or {}).items()]
        shown = f" (left out in all: {'; '.join(reasons)})" if reasons else ""
        raise DataError(f"class '{name}' has {has}{shown}.{source.advice}")


def _alike(classes: Sequence[str]) -> dict[str, list[str]]:
    """Note classes that a reader takes for one."""
    by_look: dict[str, list[str]] = {}
    for name in classes:
        shown = "".join(letter for letter in name.casefold() if unicodedata.category(letter) not in ("Cf", "Zs"))
        by_look.setdefault(shown, []).append(name)
    alike = [name for names in by_look.values() if len(names) > 1 for name in names]
    return {"classes that differ only in case, spaces or invisible letters": alike}


def _part_of(dealt: Mapping[str, Index]) -> Index:
    part_of = np.empty(sum(map(len, dealt.values())), dtype=np.int64)
    for number, places in enumerate(dealt.values()):
        part_of[places] = number
    return part_of


def _merged(notes: Iterable[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for one in notes:
        for reason, names in one.items():
            merged.setdefault(reason, []).extend(names)
    return merged
