"""The look of tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text


def empty_table(title: str, notes: Sequence[str]) -> Table:
    """Return a table without columns: title above, a note a line below."""
    return Table(
        title=Text(title),
        caption=Text("\n".join(["", *notes]), justify="left"),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
