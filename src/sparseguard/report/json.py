"""The report as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydantic_core

from sparseguard.record import SCHEMA_VERSION, Record
from sparseguard.report.analysis.grouping import sort_records
from sparseguard.report.analysis.per_image import PicturesBySlug
from sparseguard.report.analysis.record_group import MAX_DROP, Kind, RecordGroup, ReportOptions, group_records
from sparseguard.report.sections import SECTIONS, THIRD_PARTY_SECTIONS, collect_sections
from sparseguard.report.text.run_size import describe_run_size


def to_json(
    records: Sequence[Record], pictures: PicturesBySlug | None = None, max_drop: float = MAX_DROP
) -> dict[str, Any]:
    """Return the report of records as plain values, ready for ``json.dumps``.

    Each section adds lists under keys of its own; a key is there even if its list is empty.

    Args:
        records: the cases.
        pictures: what lies beside them, by ``record.case.slug``; without it there are no differences of defenses.
        max_drop: how much accuracy a variant may lose where defenses are compared at matched accuracy.

    Raises:
        RecipeError: when ``max_drop`` is not between 0 and 1.
    """
    options = ReportOptions(max_drop=max_drop)
    groups = group_records(records, pictures, options)
    groups.append(RecordGroup(Kind.REPORT, sort_records(records), pictures or {}, options))
    entries: dict[str, list[Any]] = {
        key: [] for section in (*SECTIONS, *THIRD_PARTY_SECTIONS.values()) for key in section.keys
    }
    for group in groups:
        for section, data in collect_sections(group):
            for key, values in section.json(data).items():
                entries[key] += values
    plain = {"schema_version": SCHEMA_VERSION, "run_size": describe_run_size(records), **entries}
    report: dict[str, Any] = pydantic_core.to_jsonable_python(plain)
    return report
