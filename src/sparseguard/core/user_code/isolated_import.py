"""Isolated import of a user's code: from its folder, with no trace among the imported modules."""

from __future__ import annotations

import hashlib
import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from sparseguard.core.errors import DataError

RESERVED = frozenset({*sys.stdlib_module_names, "sparseguard", "torch", "numpy"})
"""Modules that a folder's files of the same name never replace."""


@contextmanager
def importable_folder(folder: Path) -> Iterator[dict[str, str]]:
    """Make modules in ``folder`` importable by their bare names; remove them from `sys.modules` at the end.

    Modules of the same names that were imported before are restored. Warnings are suppressed, no bytecode is written.
    Two folders with modules of the same names can be used one after the other in one process.

    Yields:
        A table that is filled at the end: SHA-256 of each imported source, by its path below ``folder``.
    """
    folder = folder.resolve()
    sources: dict[str, str] = {}
    own = _module_names(folder) - RESERVED
    shadowed = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in own}
    before, path, bytecode = set(sys.modules), list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        with suppress_warnings():
            yield sources
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        for name in set(sys.modules) - before:
            file = _path_below(folder, name, sys.modules[name])
            if file is not None:
                sources[file.as_posix()] = sha256_of(folder / file)
            if file is not None or _is_dynamic(sys.modules[name]):
                del sys.modules[name]
        sys.modules.update(shadowed)
        for entry in [entry for entry in sys.path_importer_cache if Path(entry).is_relative_to(folder)]:
            del sys.path_importer_cache[entry]


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress warnings of a user's code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_sources(folder: Path, sources: Mapping[str, str], remedy: str) -> None:
    """Refuse sources that are missing or changed since a prior was imported.

    Args:
        folder: of the sources.
        sources: SHA-256 by path below it.
        remedy: advice at the end of the message.

    Raises:
        DataError: naming the file.
    """
    for name, expected in sources.items():
        file = folder / name
        if not file.is_file():
            raise DataError(f"{file}: missing; the prior's network is built by it. {remedy}")
        if sha256_of(file) != expected:
            raise DataError(f"{file}: changed since the prior was imported. {remedy}")


def sha256_of(file: Path) -> str:
    """Return a file's SHA-256."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _module_names(folder: Path) -> set[str]:
    """Return the names by which files and packages in a folder are imported."""
    return {entry.stem for entry in folder.glob("*.py")} | {entry.parent.name for entry in folder.glob("*/*.py")}


def _path_below(folder: Path, name: str, module: ModuleType) -> Path | None:
    """Return the module's source below the folder; None if it came another way, as from an environment there."""
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).resolve().is_relative_to(folder):
        return None
    inside = Path(file).resolve().relative_to(folder)
    return inside if Path(inside.parts[0]).stem == name.split(".")[0] else None


def _is_dynamic(module: ModuleType) -> bool:
    """Return whether running code created the module, as unpickled networks do from the sources they bring."""
    return getattr(module, "__spec__", None) is None and getattr(module, "__file__", None) is None
