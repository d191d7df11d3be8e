"""Tables, terminal output and pages, made from records alone."""

from sparseguard.report.controls import Control, cell_controls
from sparseguard.report.differences import DefenseDifference, between_defenses
from sparseguard.report.intervals import bootstrap_interval
from sparseguard.report.matched import MAX_DROP, Matched, matched
from sparseguard.report.noninferiority import NonInferiority, noninferiority
from sparseguard.report.page import write_page
from sparseguard.report.pareto import Pareto, frontier, pareto
from sparseguard.report.plain import to_json
from sparseguard.report.scale import scale
from sparseguard.report.spread import Difference, Spread
from sparseguard.report.table import Row, rows
from sparseguard.report.terminal import render

__all__ = [
    "MAX_DROP",
    "Control",
    "DefenseDifference",
    "Difference",
    "Matched",
    "NonInferiority",
    "Pareto",
    "Row",
    "Spread",
    "between_defenses",
    "bootstrap_interval",
    "cell_controls",
    "frontier",
    "matched",
    "noninferiority",
    "pareto",
    "render",
    "rows",
    "scale",
    "to_json",
    "write_page",
]
