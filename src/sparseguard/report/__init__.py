"""Reports from records alone: tables of the terminal, the page, JSON."""

from sparseguard.report.analysis.aggregate import Difference, SeedMean
from sparseguard.report.analysis.matched_accuracy import MatchedAccuracy, match_accuracy
from sparseguard.report.analysis.pareto_front import Pareto, find_frontier, find_pareto
from sparseguard.report.analysis.record_group import (
    MAX_DROP,
    Kind,
    RecordGroup,
    ReportOptions,
    group_records,
    summarize,
)
from sparseguard.report.analysis.summary import Row
from sparseguard.report.findings import describe_findings
from sparseguard.report.html.environment import render_html
from sparseguard.report.json import to_json
from sparseguard.report.page import write_page
from sparseguard.report.section import Section
from sparseguard.report.sections import SECTIONS
from sparseguard.report.sections.audit_verdict import Verdict, verdict
from sparseguard.report.sections.controls import Control, compare_controls
from sparseguard.report.sections.differences import DefenseDifference, compare_defenses
from sparseguard.report.tables import render
from sparseguard.report.text.run_size import describe_run_size

__all__ = [
    "MAX_DROP",
    "SECTIONS",
    "Control",
    "DefenseDifference",
    "Difference",
    "Kind",
    "MatchedAccuracy",
    "Pareto",
    "RecordGroup",
    "ReportOptions",
    "Row",
    "Section",
    "SeedMean",
    "Verdict",
    "compare_controls",
    "compare_defenses",
    "describe_findings",
    "describe_run_size",
    "find_frontier",
    "find_pareto",
    "group_records",
    "match_accuracy",
    "render",
    "render_html",
    "summarize",
    "to_json",
    "verdict",
    "write_page",
]
