"""Interface of a report section: what it collects from records, and how page, terminal and JSON show it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from rich.table import Table

from sparseguard.report.analysis.record_group import Kind, RecordGroup

Data = TypeVar("Data")


class Section(ABC, Generic[Data]):
    """One section of the report; a form that it does not override shows nothing of it."""

    kinds: ClassVar[tuple[Kind, ...]]
    """The groups it is shown for."""
    keys: ClassVar[tuple[str, ...]] = ()
    """The keys of its entries at the top level of the JSON report."""

    @abstractmethod
    def collect(self, group: RecordGroup) -> Data | None:
        """Return what the section shows of a group of records; None where it has nothing to show."""

    def html(self, data: Data) -> str:  # noqa: ARG002
        """Return its part of the page; see `sparseguard.report.html.environment.render_html`."""
        return ""

    def terminal(self, data: Data) -> list[Table]:  # noqa: ARG002
        """Return its tables, each fitting in 100 columns."""
        return []

    def summary(self, data: Data) -> list[Table]:  # noqa: ARG002
        """Return the tables that the terminal shows unless all are asked for."""
        return []

    def json(self, data: Data) -> dict[str, list[Any]]:  # noqa: ARG002
        """Return its entries by key; the report joins those of all groups."""
        return {}
