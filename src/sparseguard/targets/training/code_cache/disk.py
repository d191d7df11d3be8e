"""A folder of codes that trainings share."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

from sparseguard.core.atomic_io import read_tensors, remove_leftovers, translate_os_errors, write_file, write_tensors
from sparseguard.core.errors import StoreError
from sparseguard.targets.training.code_cache.csr import MIB, CompactCodes

HEADER = 1024
"""More bytes than a file spends on saying what it holds."""


@dataclass(frozen=True, kw_only=True)
class CodeCache:
    """Where codes are stored, and how many bytes of them.

    Args:
        folder: folder that later trainings read; its files may be removed at any time; None: none.
        memory: most bytes to hold for one training; if they take more, the layer is run instead.
        disk: most bytes of files in ``folder``; those not used for longest are removed first.
    """

    folder: Path | None = None
    memory: int = 1024 * MIB
    disk: int = 4096 * MIB

    def load(self, key: str, count: int, shape: tuple[int, ...]) -> CompactCodes | None:
        """Return the codes of ``count`` images kept under ``key``; None when there are none, or they are damaged."""
        if self.folder is None or not (path := self._path(self.folder, key)).exists():
            return None
        try:
            arrays, meta = read_tensors(path)
            codes = CompactCodes(**arrays, shape=shape, channels_last=meta.get("channels_last") is True)
        except (StoreError, TypeError, ValueError):
            return None
        if len(codes) != count or meta.get("key") != key or meta.get("checksum") != codes.checksum():
            return None
        with suppress(OSError):
            os.utime(path)
        return codes

    def save(self, key: str, codes: CompactCodes) -> None:
        """Store codes under ``key``, if there is a folder and they fit into it.

        Raises:
            StoreError: when the folder cannot be written.
        """
        if self.folder is None or (size := codes.nbytes + HEADER) > self.disk:
            return
        meta = {"key": key, "checksum": codes.checksum(), "channels_last": codes.channels_last}
        path = self._path(self.folder, key)
        with translate_os_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / ".lock"):
                remove_leftovers(self.folder)  # nobody else is writing
                path.unlink(missing_ok=True)
                self._evict(self.folder, size)
                write_file(path, lambda aside: write_tensors(aside, codes.arrays(), meta))

    def _evict(self, folder: Path, needed: int) -> None:
        states = {path: path.stat() for path in folder.glob("*.safetensors")}
        oldest_first = sorted((state.st_mtime, state.st_size, path) for path, state in states.items())
        held = sum(size for _, size, _ in oldest_first)
        for _, size, path in oldest_first:
            if held + needed <= self.disk:
                return
            path.unlink(missing_ok=True)
            held -= size

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / f"{key}.safetensors"
