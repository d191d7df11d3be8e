"""Section with raised flags and failed cases."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sparseguard.record import Case, Record
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section


@dataclass(frozen=True)
class FlagEntry:
    """A flag of one case; ``expected`` is the recipe's sentence, where it expects the flag."""

    case: Case
    name: str
    message: str
    expected: str | None


@dataclass(frozen=True)
class FailureEntry:
    """A case without scores."""

    case: Case
    stage: str
    kind: str
    message: str


@dataclass(frozen=True)
class FlagData:
    """All flags and failures."""

    flags: list[FlagEntry]
    failures: list[FailureEntry]


class Flags(Section[FlagData]):
    """Checks that raised, and cases without scores."""

    kinds = (Kind.REPORT,)
    keys = ("flags", "failures")

    def collect(self, group: RecordGroup) -> FlagData | None:
        """Return all flags and failures of a report."""
        return FlagData(
            [
                FlagEntry(record.case, flag.name, flag.message, flag.expected)
                for record in group.records
                for flag in record.flags
            ],
            [_failure(record) for record in group.records if record.status == "failed"],
        )

    def html(self, data: FlagData) -> str:
        """Return a table of the flags and one of the failures."""
        return render_html("flags.html.j2", flags=data.flags, failures=data.failures)

    def json(self, data: FlagData) -> dict[str, list[Any]]:
        """Return ``flags`` and ``failures``."""
        return {"flags": [asdict(flag) for flag in data.flags], "failures": [asdict(each) for each in data.failures]}


def _failure(record: Record) -> FailureEntry:
    if record.failure is None:
        return FailureEntry(record.case, "", "", "no reason recorded")
    return FailureEntry(record.case, record.failure.stage, record.failure.kind, record.failure.message)
