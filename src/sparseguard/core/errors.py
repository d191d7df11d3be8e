"""Errors that a user can cause or meet, each with the exit code of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class SparseguardError(Exception):
    """Base of errors that the command line shows as a message, without a traceback."""

    exit_code: ClassVar[int] = 1


class RecipeError(SparseguardError):
    """A recipe, an option or a setting that cannot be used as written."""

    exit_code = 2


class DataError(SparseguardError):
    """Files, images or labels that are missing, damaged or out of range."""

    exit_code = 3


class StoreError(SparseguardError):
    """An output folder that cannot be written or read: missing rights, full disk, in use, damaged or too new."""

    exit_code = 4


class TrainingError(SparseguardError):
    """A training run or an attack whose values are not finite or diverge."""

    exit_code = 5


class DeprecatedWordWarning(FutureWarning):
    """A word of an earlier release, which is still read; the message names the new word."""


def nearest(word: object, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'? Known: ...`` for an unknown word.

    Example:
        >>> nearest("lambda", ["lambd", "sigma"])
        "Did you mean 'lambd'? Known: lambd, sigma."
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(word), names, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(names)}."
