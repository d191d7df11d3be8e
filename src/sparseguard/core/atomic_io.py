"""Files that are whole or absent: written aside, flushed, and renamed into place."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from sparseguard.core.errors import StoreError

ASIDE = ".partial-"
"""Names of files and folders being written begin with this; what a killed process leaves can be removed."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's errors about writing ``path`` into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{path}: the disk is full. What is finished is kept; free some room and run the same again."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(f"{path}: not writable ({error.strerror}). Choose another folder with --out.") from error
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}).") from error


def write_file(path: Path, fill: Callable[[Path], None]) -> None:
    """Write ``path`` by letting ``fill`` write a file aside, which then replaces it.

    Raises:
        StoreError: when the disk is full or the folder not writable; the old file, if any, is untouched.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=ASIDE, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        aside = Path(name)
        try:
            fill(aside)
            _flush(aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_file(path, lambda aside: _write_text(aside, text))


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder ``path`` by letting ``fill`` fill one aside, which is renamed when complete.

    A folder already there is left as it is: the same content was finished by somebody else.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=path.parent))
        try:
            fill(aside)
            for file in aside.iterdir():
                _flush(file)
            if not path.exists():
                aside.rename(path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and plain values into one safetensors file."""
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = safetensors.torch.save(ready, metadata={"sparseguard": json.dumps(meta)})
    with explained(path):
        path.write_bytes(content)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        StoreError: when the file is damaged or was not written by sparseguard.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        meta = json.loads(metadata["sparseguard"])
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise StoreError(f"{path}: damaged, or not written by sparseguard ({error}). Remove it to redo it.") from None
    return tensors, dict(meta)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half-written below ``folder``."""
    for left in list(folder.rglob(ASIDE + "*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
