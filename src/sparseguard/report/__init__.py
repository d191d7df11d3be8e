"""Tables, terminal output and pages, made from records alone."""

from sparseguard.report.page import write_page
from sparseguard.report.table import Row, rows, scale, to_json
from sparseguard.report.terminal import render

__all__ = ["Row", "render", "rows", "scale", "to_json", "write_page"]
