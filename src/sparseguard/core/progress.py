"""Interface for progress of long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Display of tasks that advance."""

    def task(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Open a task of ``total`` steps; the value entered advances it."""
        ...

    def say(self, message: str) -> None:
        """Show a message."""
        ...


class Silent:
    """No display."""

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        """Open a task without display."""
        yield lambda _: None

    def say(self, message: str) -> None:
        """Drop the message."""
