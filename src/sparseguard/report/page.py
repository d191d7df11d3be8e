"""The report as one self-contained page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparseguard.core.errors import StoreError
from sparseguard.record import Record
from sparseguard.report.analysis.grouping import sort_records
from sparseguard.report.analysis.per_image import PicturesBySlug
from sparseguard.report.analysis.record_group import MAX_DROP, Kind, RecordGroup, ReportOptions, group_records
from sparseguard.report.html.environment import render_html
from sparseguard.report.sections import collect_sections
from sparseguard.report.text.run_size import describe_run_size


@dataclass(frozen=True)
class PageGroup:
    """One comparison on the page: its heading, its anchor and the text of its sections."""

    title: str
    anchor: str
    body: str


def write_page(
    records: Sequence[Record], pictures: PicturesBySlug, path: Path, with_images: bool, max_drop: float = MAX_DROP
) -> None:
    """Write records as one HTML page that loads nothing from elsewhere.

    Args:
        records: the cases to show; failed ones are shown with their reason.
        pictures: what lies beside the records, by ``record.case.slug``. Its scores are always used: for intervals,
            floors on the same images and differences of defenses. Its pictures are, when ``with_images``.
        path: the page; it appears whole or not at all.
        with_images: put private images and their reconstructions into the page.
        max_drop: how much accuracy a variant may lose where defenses are compared at matched accuracy.

    Raises:
        RecipeError: when ``max_drop`` is not between 0 and 1.
        StoreError: when the page cannot be written.
    """
    options = ReportOptions(with_images=with_images, max_drop=max_drop)
    groups = group_records(records, pictures, options)
    text = render_html(
        "page.html.j2",
        recipes=", ".join(sorted({record.recipe for record in records})),
        run_size=describe_run_size(records),
        groups=[_page_group(group) for group in groups],
        kinds={group.kind.value for group in groups},
        appendix=_body(RecordGroup(Kind.REPORT, sort_records(records), pictures, options)),
        with_images=with_images,
    )
    _write(path, text)


def _page_group(group: RecordGroup) -> PageGroup:
    case, title = group.case, group.records[0].threat.title
    prefix, anchor = ("Class inversion: ", "class-inversion-") if group.kind is Kind.CLASS_INVERSION else ("", "")
    return PageGroup(
        title=f"{prefix}{title} · {case.dataset} · {case.backbone}",
        anchor=f"{anchor}{case.threat}-{case.dataset}-{case.backbone}".replace(" ", "-"),
        body=_body(group),
    )


def _body(group: RecordGroup) -> str:
    return "".join(section.html(data) for section, data in collect_sections(group))


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)  # noqa: PTH105
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: the page cannot be written ({error.strerror or error}).") from error
