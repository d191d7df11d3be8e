"""How long work tells how far it is, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Shows tasks that advance."""

    def task(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Open a task of ``total`` steps; the value entered advances it."""
        ...

    def say(self, message: str) -> None:
        """Tell something worth a line."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG002
        """Open a task nobody watches."""
        yield lambda _: None

    def say(self, message: str) -> None:
        """Say nothing."""
