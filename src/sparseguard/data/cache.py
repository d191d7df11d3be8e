"""Folders of downloads and prepared data sets."""

from __future__ import annotations

import os
from pathlib import Path

from sparseguard.core.errors import DataError


def cache_folder() -> Path:
    """Return the folder downloads go to: ``sparseguard`` in XDG_CACHE_HOME, or else in ``~/.cache``.

    Raises:
        DataError: when neither is known.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else expand_user(Path("~/.cache"))) / "sparseguard"


def prepared_folder() -> Path:
    """Return where prepared sets are: in SPARSEGUARD_CACHE, or else in the user's cache folder."""
    named = os.environ.get("SPARSEGUARD_CACHE")
    return (Path(named).expanduser() if named else cache_folder()) / "prepared"


def expand_user(path: Path) -> Path:
    """Replace a leading ``~`` by the home folder.

    Raises:
        DataError: when there is none.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {error} Give the full path instead.") from None
