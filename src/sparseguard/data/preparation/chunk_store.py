"""Decoded images on disk while a set is prepared: pixels, digests and notes, so that a killed run continues."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparseguard.core.atomic_io import write_file, write_text
from sparseguard.data.readers.base import Bytes

ROW = np.dtype([("place", np.int64), ("digest", "V16")])
"""Stored of every decoded image besides its pixels: the index of its item in the source, and its digest."""

_PLAN = "plan.json"
_FORM = 2


class Chunks:
    """The chunks in a folder, numbered from 0; one that is listed is whole.

    Args:
        folder: exists; holds nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, plan: Mapping[str, Any], facts: Callable[[], Mapping[str, Any]]) -> None:
        """Keep the chunks and facts of the same plan; remove those of another.

        Args:
            plan: everything that the chunks depend on.
            facts: computes the values of `fact`; called when there is nothing to keep.
        """
        path, plan = self._folder / _PLAN, {**plan, "form": _FORM}
        if path.exists() and _read_json(path).get("plan") == plan:
            return
        shutil.rmtree(self._folder)
        self._folder.mkdir()
        write_text(path, json.dumps({"plan": plan, "facts": facts()}))

    def fact(self, name: str) -> Any:
        """Return one of the plan's facts."""
        return _read_json(self._folder / _PLAN)["facts"][name]

    def write(self, number: int, pixels: Bytes, rows: npt.NDArray[Any], notes: Mapping[str, Sequence[str]]) -> None:
        """Write one chunk, its notes last.

        Args:
            number: the next one.
            pixels: ``(n, h, w, c)``.
            rows: ``(n,)`` of `ROW`.
            notes: reason -> names.
        """
        path = self._folder / f"{number:08d}.json"
        write_file(path.with_suffix(".npy"), lambda aside: save_array(aside, pixels))
        write_file(path.with_suffix(".rows.npy"), lambda aside: save_array(aside, rows))
        write_text(path, json.dumps(notes))

    def rows(self) -> npt.NDArray[Any]:
        """Return ``(n,)`` of `ROW`, all chunks one after the other."""
        return np.concatenate([np.empty(0, ROW), *(self._load(path, ".rows.npy") for path in self._listed())])

    def pixels(self) -> Iterator[Bytes]:
        """Yield the chunks' pixels."""
        for path in self._listed():
            yield self._load(path, ".npy")

    def notes(self) -> Iterator[dict[str, list[str]]]:
        """Yield the chunks' notes."""
        for path in self._listed():
            yield _read_json(path)

    def __len__(self) -> int:
        return len(self._listed())

    def _listed(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.json"))

    def _load(self, path: Path, suffix: str) -> npt.NDArray[Any]:
        loaded: npt.NDArray[Any] = np.load(path.with_suffix(suffix), allow_pickle=False)
        return loaded


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write what `numpy.save` would; it raises over a full disk without saying that this is why."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.view(np.uint8).data)


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))
