"""The look of tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from sparseguard.record import Flag
from sparseguard.report.analysis.record_group import RecordGroup


def make_table(title: str, notes: Sequence[str]) -> Table:
    """Return a table without columns: title above, a note a line below."""
    return Table(
        title=Text(title),
        caption=Text("\n".join(["", *notes]), justify="left"),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )


def format_group_title(group: RecordGroup) -> str:
    """Return the heading of a group of feature inversion."""
    return f"{group.records[0].threat.title} · {group.case.dataset} · {group.case.backbone}"


def count_flags(flags: Sequence[Flag]) -> str:
    """Return the number of flags, and of those that the recipe does not expect.

    Example:
        >>> count_flags([Flag(name="a", message="m", expected="e"), Flag(name="b", message="m")]), count_flags([])
        ('2 (1 !)', '0')
    """
    unexpected = sum(flag.expected is None for flag in flags)
    return f"{len(flags)} ({unexpected} !)" if unexpected else str(len(flags))
