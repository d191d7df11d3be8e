"""Section that compares defenses at matched accuracy, as a table and as a plot of accuracy against leak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from sparseguard.record import MetricDescription
from sparseguard.report.analysis.matched_accuracy import FamilyRow, MatchedAccuracy, match_accuracy
from sparseguard.report.analysis.names import SPLITS, UNDEFENDED
from sparseguard.report.analysis.pareto_front import Pareto, find_pareto
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.charts.pareto import draw_pareto
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section
from sparseguard.report.terminal.style import format_group_title, make_table
from sparseguard.report.text.numbers import format_number, format_signed
from sparseguard.stats import SIGNIFICANCE


@dataclass(frozen=True)
class MatchedData:
    """The comparisons and the plots of a group, a tap each."""

    group: RecordGroup
    matched: list[MatchedAccuracy]
    pareto: list[Pareto]


class MatchedAccuracySection(Section[MatchedData]):
    """Of each defense the variant that leaks least among those that keep the accuracy."""

    kinds = (Kind.FEATURE_INVERSION,)
    keys = ("matched_accuracy", "pareto")

    def collect(self, group: RecordGroup) -> MatchedData | None:
        """Return the comparisons of a group's defenses."""
        return MatchedData(group, match_accuracy(group), find_pareto(group))

    def html(self, data: MatchedData) -> str:
        """Return the tables and the plots."""
        max_drop = data.group.options.max_drop
        return render_html(
            "matched_accuracy.html.j2",
            matched=data.matched,
            charts=[draw_pareto(pareto, max_drop) for pareto in data.pareto],
            metrics=data.group.metrics,
            significance=SIGNIFICANCE,
        )

    def terminal(self, data: MatchedData) -> list[Table]:
        """Return a table for each tap whose defenses can be compared."""
        return [_table(data.group, matched) for matched in data.matched if matched.reason is None]

    def json(self, data: MatchedData) -> dict[str, list[Any]]:
        """Return ``matched_accuracy`` and ``pareto``."""
        return {"matched_accuracy": data.matched, "pareto": data.pareto}


def _table(group: RecordGroup, matched: MatchedAccuracy) -> Table:
    images = f"{matched.n:,} images of " if matched.n else ""
    notes = [
        f"Of each defense the variant that leaks least (auxiliary_val) among those shown to lose less than "
        f"{matched.max_drop:g} of none's accuracy: Tango's test, one-sided {100 * SIGNIFICANCE:g} %, on "
        f"{images}{' and '.join(matched.splits)}. Tap: {matched.tap}.",
    ]
    if matched.uneven:
        least, most = matched.uneven
        notes.append(f"Defenses have {least} to {most} variants; the best of more variants leaks less by chance.")
    if matched.too_few:
        notes.append("These are too few images to show it of any variant.")
    table = make_table(f"{format_group_title(group)}: at matched accuracy", notes)
    table.add_column("defense", overflow="fold", max_width=17)
    table.add_column("variant", overflow="fold", max_width=20)
    table.add_column("accuracy\n(drop)", overflow="fold", max_width=9)
    for metric in group.metrics.values():
        table.add_column(f"{metric.label}\nprivate/test", overflow="fold", max_width=13)
    table.add_column("qualify\n/all", overflow="fold", max_width=8)
    for row in matched.rows:
        table.add_row(*map(Text, _cells(row, group.metrics)))
    return table


def _cells(row: FamilyRow, metrics: dict[str, MetricDescription]) -> list[str]:
    name = f"{row.family}\n(control)" if row.control else row.family
    counts = f"{row.qualified}/{len(row.candidates)}" + (f"\n{row.failed} failed" if row.failed else "")
    shown = row.selected or row.most_accurate
    accuracy = "" if shown is None or shown.accuracy is None else f"{shown.accuracy.mean:.3f}"
    if shown and shown.drop and row.family != UNDEFENDED:
        accuracy += f"\n({format_signed(shown.drop.mean, 3)})"
    if row.selected is None:
        words = f"best accuracy: {row.most_accurate.label}" if row.most_accurate else row.reason
        return [name, f"no variant ({words})", accuracy, *[""] * len(metrics), counts]
    scores = []
    for key, metric in metrics.items():
        measures = [row.selected.measures.get(key, {}).get(split) for split in SPLITS]
        means = [measure.score.mean if measure and measure.score else None for measure in measures]
        scores.append("/".join(format_number(mean, metric.digits, missing="n/a") for mean in means))
    label = row.selected.label.removeprefix(row.family).strip() or row.selected.label
    return [name, "" if row.family == UNDEFENDED else label, accuracy, *scores, counts]
