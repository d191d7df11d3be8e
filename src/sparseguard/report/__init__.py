"""Tables, terminal output and pages, made from records alone."""

from sparseguard.report.analysis.aggregate import Difference, Spread
from sparseguard.report.analysis.controls import Control, cell_controls
from sparseguard.report.analysis.matched_accuracy import MAX_DROP, Matched, matched
from sparseguard.report.analysis.paired_defenses import DefenseDifference, between_defenses
from sparseguard.report.analysis.pareto import Pareto, frontier, pareto
from sparseguard.report.analysis.summary import Row, rows
from sparseguard.report.html.page import write_page
from sparseguard.report.json import to_json
from sparseguard.report.terminal.tables import render
from sparseguard.report.text.run_size import scale

__all__ = [
    "MAX_DROP",
    "Control",
    "DefenseDifference",
    "Difference",
    "Matched",
    "Pareto",
    "Row",
    "Spread",
    "between_defenses",
    "cell_controls",
    "frontier",
    "matched",
    "pareto",
    "render",
    "rows",
    "scale",
    "to_json",
    "write_page",
]
