"""Groups of records that a report shows under one heading, with what every section computes from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from sparseguard.core.errors import RecipeError
from sparseguard.record import Case, MetricDescription, Record
from sparseguard.report.analysis.adversary import select_main_metrics
from sparseguard.report.analysis.grouping import group_comparable, group_seeds, sort_records
from sparseguard.report.analysis.per_image import PicturesBySlug
from sparseguard.report.analysis.summary import Row, summarize_seeds

MAX_DROP = 0.05


class Kind(Enum):
    """Kind of a group of records: one comparison of feature or class inversion, or all of the report."""

    FEATURE_INVERSION = "feature-inversion"
    CLASS_INVERSION = "class-inversion"
    REPORT = "report"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of a report.

    Args:
        with_images: show private images and their reconstructions on the page.
        max_drop: how much accuracy a variant may lose where defenses are compared at matched accuracy, between 0 and 1.

    Raises:
        RecipeError: when ``max_drop`` is not between 0 and 1.
    """

    with_images: bool = False
    max_drop: float = MAX_DROP

    def __post_init__(self) -> None:
        if not 0 < self.max_drop < 1:
            raise RecipeError(f"--max-drop must be between 0 and 1, got {self.max_drop:g}.")


@dataclass(frozen=True, eq=False)
class RecordGroup:
    """Records in the order of the report, with the pictures and scores beside them, by ``record.case.slug``."""

    kind: Kind
    records: Sequence[Record]
    pictures: PicturesBySlug = field(default_factory=dict)
    options: ReportOptions = field(default_factory=ReportOptions)

    @property
    def case(self) -> Case:
        """The first case; data set, backbone and threat are those of every case of a comparison."""
        return self.records[0].case

    @cached_property
    def cells(self) -> list[list[Record]]:
        """The records that differ in nothing but the seed."""
        return group_seeds(self.records)

    @cached_property
    def metrics(self) -> dict[str, MetricDescription]:
        """The metrics of the main tables of feature inversion."""
        return select_main_metrics(self.records)

    @cached_property
    def rows(self) -> list[Row]:
        """The rows of feature inversion."""
        return [row for cell in self.cells for row in summarize_seeds(cell, self.pictures, self.metrics)]


def group_records(
    records: Iterable[Record], pictures: PicturesBySlug | None = None, options: ReportOptions | None = None
) -> list[RecordGroup]:
    """Return the groups of one threat, data set and backbone: those of feature inversion, then of class inversion.

    Args:
        records: the cases.
        pictures: what lies beside them, by ``record.case.slug``.
        options: what the user chose.
    """
    ordered = sort_records(records)
    return [
        RecordGroup(kind, group, pictures or {}, options or ReportOptions())
        for kind in (Kind.FEATURE_INVERSION, Kind.CLASS_INVERSION)
        for group in group_comparable([record for record in ordered if record.threat.goal == kind.value])
    ]


def summarize(records: Iterable[Record], pictures: PicturesBySlug | None = None) -> list[Row]:
    """Return the rows of records: by threat, then in the recipe's order of defenses; failed cases have a row too.

    Records of class inversion are left out.

    Args:
        records: the cases.
        pictures: what lies beside them, by ``record.case.slug``; with it, floors of attacks on a
            subset of the images are known, and intervals are by the bootstrap.
    """
    groups = group_records(records, pictures)
    return [row for group in groups if group.kind is Kind.FEATURE_INVERSION for row in group.rows]
