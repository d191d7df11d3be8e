"""Writes of whole files and folders: into a temporary one, flushed, then renamed into place."""

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

PARTIAL = ".partial-"
"""Prefix of files and folders that are being written; a killed process may leave some."""


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Raise the system's errors about writing ``path`` as a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"{path}: the disk is full. Finished work is kept; free some space and run the same again."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(f"{path}: not writable ({error.strerror}). Choose another folder with --out.") from error
        raise StoreError(f"{path}: cannot be written ({error.strerror or error}).") from error


def write_file(path: Path, fill: Callable[[Path], None]) -> None:
    """Write ``path``: ``fill`` writes a temporary file, which then replaces it.

    Raises:
        StoreError: when the disk is full or the folder not writable; the old file, if any, is untouched.
    """
    with translate_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=PARTIAL, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        partial = Path(name)
        try:
            fill(partial)
            _flush(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_file(path, lambda partial: _write_text(partial, text))


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Write the folder ``path``: ``fill`` fills a temporary one, which is renamed when complete.

    An existing folder stays as it is: another process finished the same content.
    """
    with translate_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent))
        try:
            fill(partial)
            for file in partial.iterdir():
                _flush(file)
            if not path.exists():
                partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and plain values into one safetensors file."""
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = safetensors.torch.save(ready, metadata={"sparseguard": json.dumps(meta)})
    with translate_os_errors(path):
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
    """Remove the partial files and folders of killed processes below ``folder``."""
    for leftover in list(folder.rglob(PARTIAL + "*")):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
