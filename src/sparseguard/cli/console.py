"""Output of commands: tables, lines, JSON, progress bars. Imports no torch."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

WIDTH = 100
"""Columns of output that does not go to a terminal."""


class OutputClosedError(Exception):
    """Nobody reads standard output any more."""


def prepare_streams() -> None:
    """Make standard output and error accept every text: closed ones are discarded, other characters escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(values: Any) -> None:
    """Print plain values on standard output."""
    try:
        print(json.dumps(values, indent=1, allow_nan=False))  # noqa: T201
    except BrokenPipeError:
        raise OutputClosedError from None


def open_console(stderr: bool = False) -> Console:
    """Return a console that prints text as it is: no markup, no emoji codes, no highlighting."""
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            raise OutputClosedError

    terminal = stderr or sys.stdout.isatty()
    width = None if terminal else WIDTH
    return PlainConsole(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def print_line(text: str) -> None:
    """Print a line on standard output, not wrapped."""
    open_console().print(text, soft_wrap=True)


@contextmanager
def show_progress() -> Iterator[ProgressBars]:
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
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=open_console(stderr=True), transient=True) as bars:
        yield ProgressBars(bars)


class ProgressBars:
    """Progress as bars on standard error."""

    def __init__(self, bars: Progress) -> None:
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
        self._bars.console.print(message)
