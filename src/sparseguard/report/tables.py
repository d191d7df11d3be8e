"""The report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from sparseguard.record import Record
from sparseguard.report.analysis.grouping import sort_records
from sparseguard.report.analysis.per_image import PicturesBySlug
from sparseguard.report.analysis.record_group import MAX_DROP, Kind, RecordGroup, ReportOptions, group_records
from sparseguard.report.sections import collect_sections


def render(
    records: Sequence[Record],
    pictures: PicturesBySlug | None = None,
    max_drop: float = MAX_DROP,
    *,
    full: bool = False,
) -> list[Table]:
    """Return the tables, each fitting in 100 columns: a compact one for each threat, data set and backbone.

    Args:
        records: the cases.
        pictures: what lies beside them, by ``record.case.slug``; without it no defenses are compared image by image.
        max_drop: how much accuracy a variant may lose where defenses are compared at matched accuracy.
        full: return all tables instead: scores of both splits, differences, defenses at matched accuracy and others.

    Raises:
        RecipeError: when ``max_drop`` is not between 0 and 1.
    """
    options = ReportOptions(max_drop=max_drop)
    groups = group_records(records, pictures, options)
    groups.append(RecordGroup(Kind.REPORT, sort_records(records), pictures or {}, options))
    return [
        table
        for group in groups
        for section, data in collect_sections(group)
        for table in (section.terminal(data) if full else section.summary(data))
    ]
