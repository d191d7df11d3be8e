"""Code that is not part of sparseguard: run from its folder, with nothing of it left among the imported modules."""

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

KEPT = frozenset({*sys.stdlib_module_names, "sparseguard", "torch", "numpy"})
"""Modules that a folder's files of the same name never replace."""


@contextmanager
def code_of(folder: Path) -> Iterator[dict[str, str]]:
    """Let modules in ``folder`` be imported by their bare names, and remove them from `sys.modules` on leaving.

    Modules of the same names that were imported before are put aside and come back. Warnings are not shown, no
    bytecode is written. Two folders with modules of the same names can be used one after the other in one process.

    Yields:
        A table that is filled on leaving: SHA-256 of each source that was imported, by its path below ``folder``.
    """
    folder = folder.resolve()
    sources: dict[str, str] = {}
    own = _provided(folder) - KEPT
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in own}
    before, path, bytecode = set(sys.modules), list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        with quiet():
            yield sources
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        for name in set(sys.modules) - before:
            file = _below(folder, name, sys.modules[name])
            if file is not None:
                sources[file.as_posix()] = sha256_of(folder / file)
            if file is not None or _made_by_hand(sys.modules[name]):
                del sys.modules[name]
        sys.modules.update(aside)
        for entry in [entry for entry in sys.path_importer_cache if Path(entry).is_relative_to(folder)]:
            del sys.path_importer_cache[entry]


@contextmanager
def quiet() -> Iterator[None]:
    """Show no warnings of code that is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_sources(folder: Path, sources: Mapping[str, str], remedy: str) -> None:
    """Refuse sources that are not there or not the same as when a prior was imported.

    Args:
        folder: where they are.
        sources: SHA-256 by path below it.
        remedy: what the message tells the user to do.

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
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _provided(folder: Path) -> set[str]:
    """The names by which files and packages in a folder are imported."""
    return {entry.stem for entry in folder.glob("*.py")} | {entry.parent.name for entry in folder.glob("*/*.py")}


def _below(folder: Path, name: str, module: ModuleType) -> Path | None:
    """The module's source below the folder, unless it was found another way, as in an environment kept there."""
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).resolve().is_relative_to(folder):
        return None
    inside = Path(file).resolve().relative_to(folder)
    return inside if Path(inside.parts[0]).stem == name.split(".")[0] else None


def _made_by_hand(module: ModuleType) -> bool:
    """Whether running code made the module, as unpickled networks do with the sources they bring."""
    return getattr(module, "__spec__", None) is None and getattr(module, "__file__", None) is None
