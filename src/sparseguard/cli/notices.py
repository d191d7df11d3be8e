"""Notices of the library as single lines on standard error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from sparseguard.cli.console import open_console
from sparseguard.core.component_table import ComponentWarning
from sparseguard.core.errors import DeprecatedWordWarning


@contextmanager
def print_notices() -> Iterator[None]:
    """Print warnings about old words and about broken components without the place in the code they come from."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_notice(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, (DeprecatedWordWarning, ComponentWarning)):
                open_console(stderr=True).print(f"sparseguard: {message}", soft_wrap=True)
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = show_notice
        yield
