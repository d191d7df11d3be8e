"""Parquet files of a data set: which ones belong together, and which of their columns hold images and labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseguard.core.errors import DataError
from sparseguard.data.readers.class_folders import SPLITS, SUFFIXES, check_name
from sparseguard.data.readers.folder import walk

SUFFIX = ".parquet"

_SHARD = re.compile(r"(?P<head>.*-)(?P<number>\d{5})-of-(?P<count>\d{5})(?P<tail>.*)")
_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a file's images and labels are.

    Args:
        image: path of the column of encoded images.
        label: name of the column of labels.
        classes: their names by number; empty when the file has none.
    """

    image: str
    label: str
    classes: tuple[str, ...]

    def __str__(self) -> str:
        named = f" ({', '.join(self.classes[:10])}{', ...' if len(self.classes) > 10 else ''})" if self.classes else ""
        return f"{self.image!r} and {self.label!r}{named}"


def is_parquet(path: Path) -> bool:
    """Return whether there is a parquet file, or a folder with some and without image files."""
    if not path.is_dir():
        return path.is_file() and path.suffix.lower() == SUFFIX
    any_parquet = False
    for name, entry in walk(path):
        if name.lower().endswith(tuple(SUFFIXES)):
            return False
        any_parquet |= name.lower().endswith(SUFFIX) and not entry.is_dir(follow_symlinks=False)
    return any_parquet


def find_parquet(path: Path) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Find the parquet files at ``path``, all of one data set; folders ``train``, ``test`` and the like are merged.

    A link is followed when it leads into the folder ``blobs`` of the hub's cache that ``path`` lies in.

    Returns:
        the files by name, sorted; and what was left out, reason -> names.

    Raises:
        DataError: when they lie in folders of several data sets, or have been replaced by pointers to them.
    """
    if path.is_file():
        return {path.name: path}, {}
    files: dict[str, Path] = {}
    left_out: dict[str, list[str]] = {}
    for name, entry in walk(path):
        check_name(name, path)
        if entry.is_symlink() and not _in_hub_cache(path / name):
            left_out.setdefault("links, not followed", []).append(name)
        elif entry.is_file() and name.lower().endswith(SUFFIX):
            files[name] = path / name
        elif not entry.is_dir():
            reason = "no parquet files by their names" if entry.is_file() else "neither files nor folders"
            left_out.setdefault(reason, []).append(name)
    if not files:
        raise DataError(
            f"{path}: its parquet files are links out of it or no files. Copy them by cp -rL, which follows links."
        )
    folders = sorted({_folder_of(name) for name in files})
    if len(folders) > 1:
        raise DataError(
            f"{path}: holds parquet files in several folders ({', '.join(folders)}), maybe of several data sets. "
            "Give one of these folders, or put the files of one data set into one folder."
        )
    return dict(sorted(files.items())), left_out


def missing_shards(names: Sequence[str]) -> dict[str, list[str]]:
    """Return a note of the files that others' names (``train-00000-of-00002.parquet``) say there are."""
    missing = {
        f"{shard['head']}{number:05d}-of-{shard['count']}{shard['tail']}"
        for shard in filter(None, map(_SHARD.fullmatch, names))
        for number in range(int(shard["count"]))
    } - set(names)
    return {"parquet files that are missing by the others' names": sorted(missing)} if missing else {}


def choose_columns(features: Mapping[str, Any], where: Path) -> Columns:
    """Choose among a file's columns.

    One ``Image`` and one ``ClassLabel`` are taken where there are such features. Without them, the one column of
    bytes, or of structs of bytes and path, and the one column of integers, or that called ``label``.

    Args:
        features: those of `datasets`, by column.
        where: the file, for messages.

    Raises:
        DataError: when there is more than one choice, or none.
    """
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    images = [f"{name}.bytes" for name, kind in kinds.items() if kind == "Image"] or [
        path for name, feature in features.items() if (path := _bytes_in(name, feature))
    ]
    named = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    integers = [name for name, kind in kinds.items() if kind == "Value" and features[name].dtype in _INTEGERS]
    labels = named or (["label"] if "label" in integers else integers)
    if len(images) != 1 or len(labels) != 1:
        shown = ", ".join(f"{name!r} ({_kind(feature)})" for name, feature in features.items()) or "no columns"
        raise DataError(
            f"{where}: needs one column of images (Image, or bytes) and one of classes (ClassLabel, or integers), "
            f"found {shown}. Load it with datasets, remove or cast columns, and save it by save_to_disk."
        )
    return Columns(image=images[0], label=labels[0], classes=tuple(features[named[0]].names) if named else ())


def explain_unreadable(file: Path, error: Exception) -> DataError:
    """Return the error for a file that cannot be read."""
    try:
        with file.open("rb") as opened:
            pointer = opened.read(len(_POINTER)) == _POINTER
    except OSError:
        pointer = False
    if pointer:
        return DataError(f"{file}: a pointer of Git LFS instead of the file. Run git lfs pull, or download it.")
    return DataError(f"{file}: no parquet file that can be read ({error}). Get it again.")


def _kind(feature: Any) -> str:
    if isinstance(feature, dict):
        return f"struct of {', '.join(map(repr, feature))}"
    name = type(feature).__name__
    return str(feature.dtype) if name == "Value" else name


def _bytes_in(name: str, feature: Any) -> str | None:
    if isinstance(feature, dict):
        inside = feature.get("bytes")
        return f"{name}.bytes" if feature.keys() <= {"bytes", "path"} and _is_binary(inside) else None
    return name if _is_binary(feature) else None


def _is_binary(feature: Any) -> bool:
    return type(feature).__name__ == "Value" and feature.dtype in ("binary", "large_binary")


def _folder_of(name: str) -> str:
    folders = name.split("/")[:-1]
    return "/".join(folders[:-1] if folders and folders[-1].lower() in SPLITS else folders) or "."


def _in_hub_cache(link: Path) -> bool:
    """Return whether a link is one of ``<set>/snapshots/<revision>/...`` into ``<set>/blobs``."""
    target = link.resolve()
    caches = [folder.parent for folder in link.absolute().parents if folder.name == "snapshots"]
    return any(target.parent == (cache / "blobs").resolve() for cache in caches)
