"""Prepared data sets: their reading, and the base of those that are prepared on first use."""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from sparseguard.core.config import describe, settings
from sparseguard.core.errors import DataError
from sparseguard.core.progress import Progress
from sparseguard.data.base import DataSet
from sparseguard.data.cache import prepared_folder
from sparseguard.data.preparation.assemble import IMAGES, LABELS, METADATA
from sparseguard.data.preparation.decode_image import ImageFormat
from sparseguard.data.preparation.pipeline import VERSION, prepare
from sparseguard.data.readers.base import Source
from sparseguard.types import ImageSet, Splits

_SIZES = ("private", "auxiliary", "auxiliary_val", "test")
_FORMER_NAMES = {"attacker_train": "auxiliary", "attacker_val": "auxiliary_val", "select": "tuning"}
"""Names of splits in sets that an earlier version prepared."""

_FORMER = re.compile(rf"\b({'|'.join(_FORMER_NAMES)})\b")


def read_metadata(folder: Path) -> dict[str, Any]:
    """Return the content of a prepared set's ``prepared.json``.

    Raises:
        DataError: when it is missing, damaged or of another version.
    """
    try:
        metadata = dict(json.loads((folder / METADATA).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder}: not readable ({error}). Remove it to prepare it again.") from None
    if metadata.get("version") != VERSION:
        raise DataError(f"{folder}: prepared by another version of sparseguard. Remove it to prepare it again.")
    return metadata | {
        key: _rename_splits(metadata[key]) for key in ("parts", "duplicates", "notes") if key in metadata
    }


def _rename_splits(value: Any) -> Any:
    """Replace the former names of splits in the keys of an object."""
    if not isinstance(value, dict):
        return value
    return {
        _FORMER.sub(lambda match: _FORMER_NAMES[match[0]], key): _rename_splits(each) for key, each in value.items()
    }


def read_prepared(folder: Path) -> Splits:
    """Read a prepared set; the splits' pixels are views of one memory-mapped file, nothing is copied.

    Raises:
        DataError: when a file is missing or damaged.
    """
    metadata = read_metadata(folder)
    try:
        pixels = np.load(folder / IMAGES, mmap_mode="c", allow_pickle=False)
        labels = torch.from_numpy(np.load(folder / LABELS, allow_pickle=False))
        classes, ranges = tuple(metadata["classes"]), metadata["parts"]
        if not len(pixels) == len(labels) == max(end for _, end in ranges.values()) or labels.max() >= len(classes):
            raise ValueError(f"{IMAGES}, {LABELS} and {METADATA} contradict each other")
        splits = {
            split: ImageSet(pixels=torch.from_numpy(pixels[start:end]), labels=labels[start:end], classes=classes)
            for split, (start, end) in ranges.items()
        }
        flips_keep_class = metadata["flips_keep_class"]
        return Splits(name=metadata["name"], layout=metadata["layout"], flips_keep_class=flips_keep_class, **splits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise DataError(f"{folder}: damaged ({error}). Remove it to prepare it again.") from None


@settings
class PreparedSet(DataSet):
    """Settings of a set that is prepared on first use and memory-mapped from then on.

    Args:
        path: where the files are. Without it, the one set prepared with these settings is taken, or else the files
            are looked for in the folder the environment variable SPARSEGUARD_DATA names.
        remove_duplicates: keep exact copies of an image only in the first split that holds one; private is the first.
    """

    places: ClassVar[tuple[str, ...]] = ()
    """Where the files are in the folder SPARSEGUARD_DATA names; the first that is there is taken."""

    whole: ClassVar[int | None] = None
    """How many images the set has where its owner publishes it; None where there is no such number."""

    path: Path | None = None
    remove_duplicates: bool = False

    @abstractmethod
    def _source(self, path: Path) -> Source:
        """Open the files."""

    @abstractmethod
    def _image_format(self) -> ImageFormat:
        """Return size and channels of every image."""

    def _flips(self) -> bool:
        return self.flips_keep_class

    def prepare(self, progress: Progress | None = None, workers: int | None = None) -> Path:
        """Prepare the set unless it is; return its folder.

        Raises:
            DataError: when the files are missing or refused.
            StoreError: when the cache cannot be written.
        """
        path = self._find_files()
        if path is None:
            return self._single_prepared()
        with self._source(path) as source:
            key = hashlib.sha256(source.key().encode()).hexdigest()[:16]
            folder = prepared_folder() / self.name / f"{self._settings_key()}-{key}"
            prepare(
                source,
                folder,
                self._image_format(),
                name=self.name,
                layout=self.layout,
                flips_keep_class=self._flips(),
                classes=self.classes,
                whole=self.whole,
                remove_duplicates=self.remove_duplicates,
                settings=self._prepared_settings(),
                progress=progress,
                workers=workers,
            )
        return folder

    def prepared(self) -> list[Path]:
        """Return the folders of this name in the cache, whatever their settings, by name."""
        return sorted(file.parent for file in (prepared_folder() / self.name).glob(f"*/{METADATA}"))

    def _read(self) -> Splits:
        return read_prepared(self.prepare())

    def _find_files(self) -> Path | None:
        if self.path is not None:
            try:
                path = self.path.expanduser()
                path.exists()
            except RuntimeError as error:
                raise DataError(f"{self.path}: {error} Give the full path instead.") from None
            except (OSError, ValueError) as error:
                raise DataError(f"{self.path}: cannot be looked at ({error}). Check the path and its rights.") from None
            return path
        if self._matching():
            return None
        root = os.environ.get("SPARSEGUARD_DATA")
        paths = [Path(root).expanduser() / place for place in self.places] if root else []
        return next((path for path in paths if path.exists()), None)

    def _single_prepared(self) -> Path:
        matching = self._matching()
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise DataError(f"{self.name}: prepared from {len(matching)} places. Set path= to the one you mean.")
        hint = f", or set SPARSEGUARD_DATA to the folder around {self.places[0]}" if self.places else ""
        raise DataError(f"{self.name}: no files given and none prepared. Set path= to them{hint}.")

    def _matching(self) -> list[Path]:
        return [folder for folder in self.prepared() if folder.name.startswith(self._settings_key() + "-")]

    def _prepared_settings(self) -> dict[str, Any]:
        """Return the settings that decide what is prepared."""
        return {key: value for key, value in describe(self).items() if key not in (*_SIZES, "path")}

    def _settings_key(self) -> str:
        settings = {"version": VERSION, "revision": self.revision, **self._prepared_settings()}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
