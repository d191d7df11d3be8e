"""Results of a run folder: its records and pictures, its page, and what the terminal shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sparseguard.cli.codes import FAILED_CASES
from sparseguard.cli.console import open_console, print_json, print_line
from sparseguard.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparseguard.record import Pictures, Record

MAX_DROP = 0.05
PAGE = "report.html"


def read_all_pictures(folder: Path, records: Sequence[Record], required: bool) -> dict[str, Pictures]:
    """Read the files beside the records, by case; without ``required``, those that cannot be read are left out."""
    from sparseguard.record import read_pictures

    pictures = {}
    for record in records:
        if record.status == "ok":
            try:
                pictures[record.case.slug] = read_pictures(folder / "records" / f"{record.case.slug}.safetensors")
            except StoreError:
                if required:
                    raise
    return pictures


def write_report(
    folder: Path,
    records: Sequence[Record],
    pictures: dict[str, Pictures],
    with_images: bool = False,
    max_drop: float = MAX_DROP,
) -> Path:
    """Write the page into a run folder."""
    from sparseguard.report import write_page

    write_page(records, pictures, folder / PAGE, with_images, max_drop)
    return folder / PAGE


def show_tables(
    records: Sequence[Record], pictures: dict[str, Pictures], max_drop: float = MAX_DROP, full: bool = False
) -> None:
    """Print the compact tables, or all of them."""
    from sparseguard.report import render

    console = open_console()
    for table in render(records, pictures, max_drop, full=full):
        console.print(table)


def show_json(records: Sequence[Record], pictures: dict[str, Pictures], max_drop: float = MAX_DROP) -> None:
    """Print the report as JSON."""
    from sparseguard.report import to_json

    print_json(to_json(records, pictures, max_drop))


def show_page(page: Path, full: bool = False) -> None:
    """Print where the page is, and how to see all tables."""
    print_line(f"page: {page}")
    if not full:
        print_line(f"all tables: sparseguard report {page.parent} --full")


def end_by_status(records: Sequence[Record]) -> None:
    """End the command with its exit code where cases failed."""
    if any(record.status == "failed" for record in records):
        raise typer.Exit(FAILED_CASES)
