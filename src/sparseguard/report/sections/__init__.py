"""Sections of the report, one file each; `SECTIONS` lists them in the order of page, terminal and JSON."""

from __future__ import annotations

from typing import Any

from sparseguard.core.component_table import ComponentTable
from sparseguard.report.analysis.record_group import RecordGroup
from sparseguard.report.section import Section
from sparseguard.report.sections.attacks import Attacks
from sparseguard.report.sections.audit_verdict import AuditVerdicts
from sparseguard.report.sections.bounds import Bounds
from sparseguard.report.sections.class_inversion import ClassInversion
from sparseguard.report.sections.controls import Controls
from sparseguard.report.sections.defense_costs import DefenseCosts
from sparseguard.report.sections.differences import Differences
from sparseguard.report.sections.flags import Flags
from sparseguard.report.sections.gallery import Gallery
from sparseguard.report.sections.learning_curves import LearningCurves
from sparseguard.report.sections.matched_accuracy import MatchedAccuracySection
from sparseguard.report.sections.provenance import Provenance
from sparseguard.report.sections.scores import Scores

SECTIONS: list[Section[Any]] = [
    AuditVerdicts(),
    Scores(),
    Differences(),
    Controls(),
    MatchedAccuracySection(),
    ClassInversion(),
    DefenseCosts(),
    Gallery(),
    LearningCurves(),
    Bounds(),
    Attacks(),
    Flags(),
    Provenance(),
]

THIRD_PARTY_SECTIONS: ComponentTable[Section[Any]] = ComponentTable("sparseguard.report_sections", Section, {})
"""Sections of other distributions; they follow those above."""


def collect_sections(group: RecordGroup) -> list[tuple[Section[Any], Any]]:
    """Return the sections that have something to show of a group, each with what it shows."""
    collected = (
        (section, section.collect(group))
        for section in (*SECTIONS, *THIRD_PARTY_SECTIONS.values())
        if group.kind in section.kinds
    )
    return [(section, data) for section, data in collected if data is not None]
