"""Section with class inversion: attack accuracy, nearness to private images, whole sets, priors and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from sparseguard.report.analysis.class_report import ClassReport, report_classes
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.html.class_gallery import draw_class_sheets
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section
from sparseguard.report.terminal.class_tables import tabulate_classes, tabulate_summary
from sparseguard.report.text import class_wording


@dataclass(frozen=True)
class ClassData:
    """A group with its class inversion report."""

    group: RecordGroup
    report: ClassReport


class ClassInversion(Section[ClassData]):
    """Attacks on whole classes, in a form of their own."""

    kinds = (Kind.CLASS_INVERSION,)
    keys = ("class_inversion",)

    def collect(self, group: RecordGroup) -> ClassData | None:
        """Return the rows of a group, its evaluators and priors."""
        return ClassData(group, report_classes(group))

    def html(self, data: ClassData) -> str:
        """Return the tables, and the pictures where the user wants them."""
        group, report = data.group, data.report
        return render_html(
            "class_inversion.html.j2",
            report=report,
            nearness=class_wording.list_image_scores(report),
            sets=class_wording.list_set_scores(report),
            with_images=group.options.with_images,
            sheets=draw_class_sheets(group, report) if group.options.with_images else [],
            words=class_wording,
        )

    def terminal(self, data: ClassData) -> list[Table]:
        """Return the tables of attack accuracy, nearness, sets, classes and priors."""
        return tabulate_classes(data.report, data.group.records)

    def summary(self, data: ClassData) -> list[Table]:
        """Return the table of attack accuracy."""
        return [tabulate_summary(data.report)]

    def json(self, data: ClassData) -> dict[str, list[Any]]:
        """Return ``class_inversion``."""
        return {"class_inversion": [data.report]}
