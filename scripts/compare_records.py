"""Compare the records of two run folders: ``python scripts/compare_records.py OLD NEW``.

Records of every schema version are read. Everything is compared but keys and provenance. With ``--intervals``,
95 % intervals of paired differences and of class inversion may differ. Prints every difference, and ends with 1 where
there are any.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparseguard.core.errors import StoreError
from sparseguard.record import Record, read_records

IGNORED = ("key", "provenance")


def compare(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Yield the differences of two plain values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            inner = f"{place}.{name}" if place else str(name)
            if name not in old or name not in new:
                yield f"{inner}: only in the {'new' if name in new else 'old'} record"
            else:
                yield from compare(old[name], new[name], inner)
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for number, (first, second) in enumerate(zip(old, new, strict=True)):
            yield from compare(first, second, f"{place}[{number}]")
    elif not _equal(old, new):
        yield f"{place}: {_short(old)} before, {_short(new)} now"


def compare_folders(old: Path, new: Path, *, intervals: bool = False) -> Iterator[str]:
    """Yield the differences of all records of two folders.

    Args:
        old: a run folder.
        new: another one.
        intervals: leave out intervals of paired differences and of class inversion.
    """
    before, now = ({record.case.slug: record for record in read_records(folder)} for folder in (old, new))
    for slug in sorted(before.keys() | now.keys()):
        if slug not in before or slug not in now:
            yield f"{slug}: only in the {'new' if slug in now else 'old'} folder"
            continue
        bootstrap = "scores" if now[slug].class_inversion else "comparisons"
        for difference in compare(_plain(before[slug]), _plain(now[slug])):
            if not (intervals and bootstrap in difference and ".ci95[" in difference):
                yield f"{slug}: {difference}"


def _plain(record: Record) -> dict[str, Any]:
    plain = record.model_dump(mode="json", exclude=set(IGNORED))
    if plain["outcome"]:  # by name instead of by position, so that places tell what differs
        plain["outcome"]["attacks"] = {attack["name"]: attack for attack in plain["outcome"]["attacks"]}
    return plain


def _equal(old: Any, new: Any) -> bool:
    both = isinstance(old, float) and isinstance(new, float)
    return bool(old == new or (both and math.isnan(old) and math.isnan(new)))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def main() -> int:
    """Compare two folders and return 0 where their records are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--intervals", action="store_true", help="let these intervals differ")
    given = parser.parse_args()
    try:
        differences = list(compare_folders(given.old, given.new, intervals=given.intervals))
    except StoreError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(differences) or f"{given.old} and {given.new}: equal records")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
