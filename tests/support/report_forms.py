"""The forms of a report in tests: page, terminal, groups of records; and wording as lines for snapshots."""

import html
import io
import re
from pathlib import Path

from rich.console import Console

from sparseguard.record import Pictures, Record
from sparseguard.report import (
    MatchedAccuracy,
    Pareto,
    RecordGroup,
    ReportOptions,
    find_pareto,
    group_records,
    match_accuracy,
    render,
    write_page,
)
from support.html_pages import Balance


def page(
    folder: Path,
    records: list[Record],
    pictures: dict[str, Pictures] | None = None,
    with_images: bool = False,
    **options: float,
) -> str:
    """Write a page, check that it is well formed and loads nothing, and return it."""
    path = folder / "report.html"
    write_page(records, pictures or {}, path, with_images, **options)
    text = path.read_text(encoding="utf-8")
    balance = Balance()
    balance.feed(text)
    assert (balance.open, balance.wrong) == ([], [])
    assert not balance.tags & {"script", "link", "iframe", "object", "embed"}
    assert all(load.startswith(("#", "data:image/png;base64,")) for load in balance.loads)
    return text


def wording(text: str) -> list[str]:
    """Return the words of a page, a line for each element with words; pictures of charts are left out."""
    text = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", text, flags=re.DOTALL)
    lines = (" ".join(html.unescape(line).split()) for line in re.sub(r"<[^>]+>", "\n", text).split("\n"))
    return [line for line in lines if line]


def terminal(
    records: list[Record],
    pictures: dict[str, Pictures] | None = None,
    *,
    full: bool = True,
    width: int = 100,
    **options: float,
) -> str:
    """Return the tables as a terminal of this width shows them."""
    console = Console(width=width, file=io.StringIO(), color_system=None, emoji=False, markup=False)
    for table in render(records, pictures, full=full, **options):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def feature_groups(
    records: list[Record], pictures: dict[str, Pictures] | None = None, **options: float
) -> list[RecordGroup]:
    """Return the groups of feature inversion."""
    groups = group_records(records, pictures, ReportOptions(**options))
    return [group for group in groups if group.kind.value == "feature-inversion"]


def matched(records: list[Record], max_drop: float = 0.05) -> list[MatchedAccuracy]:
    """Return the comparisons at matched accuracy of all groups."""
    return [each for group in feature_groups(records, max_drop=max_drop) for each in match_accuracy(group)]


def pareto(records: list[Record]) -> list[Pareto]:
    """Return the Pareto plots of all groups."""
    return [each for group in feature_groups(records) for each in find_pareto(group)]
