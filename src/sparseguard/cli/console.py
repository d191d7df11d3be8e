"""What commands show and how: tables, JSON, progress bars. Imports no torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def print_json(values: Any) -> None:
    """Print plain values on standard output."""
    print(json.dumps(values, indent=1, allow_nan=False))  # noqa: T201


def console(stderr: bool = False) -> Console:
    """Return where tables and lines go; standard output that is no terminal is 100 columns wide."""
    from rich.console import Console

    narrow = None if sys.stdout.isatty() or stderr else 100
    return Console(stderr=stderr, width=narrow)


@contextmanager
def progress() -> Iterator[Bars]:
    """Show bars on standard error until the work ends."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        yield Bars(bars)


class Bars:
    """Shows progress as rich bars on standard error."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar until the task ends."""
        task = self._bars.add_task(label, total=total)
        try:
            yield lambda steps: self._bars.advance(task, steps)
        finally:
            self._bars.remove_task(task)

    def say(self, message: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(message, markup=False)
