"""Section with scores of feature inversion: a row a defense and adversary, with floors, flags and claims."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from sparseguard.record import Claim, MetricDescription
from sparseguard.report.analysis.names import SPLITS
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.analysis.summary import Measure, Row
from sparseguard.report.charts.overview import draw_overview
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section
from sparseguard.report.terminal.style import count_flags, format_group_title, make_table
from sparseguard.report.text.numbers import MISSING, format_chance, format_mean, format_number
from sparseguard.report.text.run_size import describe_run_size
from sparseguard.report.text.wording import describe_adversary, describe_direction, describe_identification


class Scores(Section[RecordGroup]):
    """Accuracy, scores of the chosen attacks, floors, flags and claims."""

    kinds = (Kind.FEATURE_INVERSION,)
    keys = ("rows",)

    def collect(self, group: RecordGroup) -> RecordGroup | None:
        """Return the group; its rows are what is shown."""
        return group

    def html(self, data: RecordGroup) -> str:
        """Return the overview chart and the table of scores."""
        adversaries = dict.fromkeys(row.adversary for row in data.rows if row.adversary)
        return render_html(
            "scores.html.j2",
            sentence=data.records[0].threat.sentence,
            taps=_taps(data),
            identification=describe_identification(_pools(data)),
            adversaries={each.label: describe_adversary(each) for each in adversaries},
            rows=data.rows,
            metrics=data.metrics,
            chart=draw_overview(data.rows),
        )

    def terminal(self, data: RecordGroup) -> list[Table]:
        """Return the table of scores on both splits, with floors and attacks."""
        return [_full_table(data)]

    def summary(self, data: RecordGroup) -> list[Table]:
        """Return the table of scores on private images alone."""
        return [_summary_table(data)]

    def json(self, data: RecordGroup) -> dict[str, list[Any]]:
        """Return ``rows``."""
        return {"rows": data.rows}


def _taps(group: RecordGroup) -> str:
    return ", ".join(dict.fromkeys(row.tap for row in group.rows))


def _pools(group: RecordGroup) -> dict[str, int]:
    return next((row.identification for row in group.rows if row.identification), {})


def _summary_table(group: RecordGroup) -> Table:
    rows = group.rows
    partial = any("private" in row.partial for row in rows)
    notes = [
        f"{describe_direction(group.metrics.values())} Private images; best floor: PSNR in dB without inversion; "
        f"flags: of checks, ! not expected.",
        *(["n: images attacked, where these are not all."] if partial else []),
        *(["± is the standard deviation over seeds."] if any(row.seeds > 1 for row in rows) else []),
        *_failures(rows),
    ]
    table = make_table(format_group_title(group), notes)
    table.add_column("defense", overflow="fold", max_width=24)
    table.add_column("knowledge", overflow="fold", max_width=11)
    table.add_column("accuracy", overflow="fold", max_width=8)
    for metric in group.metrics.values():
        table.add_column(metric.label, overflow="fold", max_width=9)
    table.add_column("best\nfloor", overflow="fold", max_width=6)
    table.add_column("flags", overflow="fold", max_width=7)
    for previous, row in zip([None, *rows], rows, strict=False):
        table.add_row(*map(Text, _summary_cells(row, row.repeats_target(previous), group.metrics)))
    return table


def _summary_cells(row: Row, repeated: bool, metrics: dict[str, MetricDescription]) -> list[str]:
    target = ["", ""] if repeated else [row.defense, _accuracy(row)]
    flags = "" if repeated else count_flags(row.flags)
    if row.status == "failed":
        return [row.defense, "failed", "", *[""] * len(metrics), "", flags]
    attacked = row.partial.get("private")
    knowledge = row.label.replace(", ", ",\n") + (f"\nn={attacked[0]}" if attacked else "")
    measures = {name: row.measures[name].get("private") for name in metrics}
    scores = [
        format_mean(measure.score if measure else None, metric.digits, separator="\n±", missing="n/a")
        for metric, measure in zip(metrics.values(), measures.values(), strict=True)
    ]
    psnr = measures.get("psnr")
    return [target[0], knowledge, target[1], *scores, format_number(psnr.floor if psnr else None, 2, "n/a"), flags]


def _full_table(group: RecordGroup) -> Table:
    metrics, rows = group.metrics, group.rows
    table = make_table(format_group_title(group), _notes(group))
    table.add_column("defense", overflow="fold", max_width=17)
    table.add_column("accuracy", overflow="fold", max_width=9)
    for metric in metrics.values():
        table.add_column(f"{metric.label}\nprivate/test", overflow="fold", max_width=15)
    table.add_column("attack\n(knowledge)", overflow="fold", max_width=13)
    table.add_column("flags", overflow="fold", max_width=15)
    for previous, row in zip([None, *rows], rows, strict=False):
        repeated = row.repeats_target(previous)
        table.add_row(*map(Text, _cells(row, repeated, metrics)))
        if row.claim and not repeated:
            table.add_row(*map(Text, _claim_cells(row.claim, metrics)), style="dim")
    return table


def _claim_cells(claim: Claim, metrics: dict[str, MetricDescription]) -> list[str]:
    values = {"psnr": claim.psnr, "ssim": claim.ssim}
    scores = [format_number(values.get(name), metric.digits, missing="") for name, metric in metrics.items()]
    return [f"paper claims\n({claim.source})", f"{claim.accuracy:.3f}", *scores]


def _cells(row: Row, repeated: bool, metrics: dict[str, MetricDescription]) -> list[str]:
    """Return a row's cells; a row of the same target as the one above leaves out what is the same."""
    flags = "\n".join(f"{flag.name} (expected)" if flag.expected else f"{flag.name} (!)" for flag in row.flags)
    if row.status == "failed":
        return [row.defense, "failed", *[""] * len(metrics), "", flags]
    names = dict.fromkeys(name for chosen in row.chosen.values() for name in chosen)
    attacks = f"{', '.join(names)}\n({row.label})" if row.adversary else MISSING
    scores = [_scores(row, name, metric.digits) for name, metric in metrics.items()]
    if repeated:
        return ["", "", *scores, attacks, ""]
    return [row.defense, _accuracy(row), *scores, attacks, flags]


def _accuracy(row: Row) -> str:
    return format_mean(row.accuracy, 3, separator="\n±")


def _scores(row: Row, metric: str, digits: int | None) -> str:
    measures = [row.measures[metric].get(split) for split in SPLITS]
    means = "/".join(_mean(measure, digits) for measure in measures)
    if metric == "id@1":
        floors = list(dict.fromkeys(format_chance(size) for size in row.identification.values()))
    else:
        floors = [format_number(measure.floor if measure else None, digits, missing="n/a") for measure in measures]
    lines = [means, *([f"({'/'.join(floors)})"] if floors else [])]
    if any(measure and measure.partial for measure in measures):
        lines.append(f"n={'/'.join(str(measure.n) if measure and measure.n else 'n/a' for measure in measures)}")
    return "\n".join(lines)


def _mean(measure: Measure | None, digits: int | None) -> str:
    return format_number(measure.score.mean if measure and measure.score else None, digits, missing="n/a")


def _failures(rows: list[Row]) -> list[str]:
    failures = dict.fromkeys((row.defense, failure) for row in rows for failure in row.failures)
    return [f"Failed: {defense}, seed {failure.seed}: {failure.reason}" for defense, failure in failures]


def _notes(group: RecordGroup) -> list[str]:
    rows = [row for row in group.rows if row.seeds]
    by_split = [splits for row in rows for splits in row.measures.values()]
    incomplete = any(len(splits) < len(SPLITS) for splits in by_split)
    without_floor = any(measure.floor is None for splits in by_split for measure in splits.values())
    return [
        describe_run_size(group.records),
        f"{group.records[0].threat.sentence} Tap: {_taps(group)}.",
        f"{describe_direction(group.metrics.values())} In brackets: the best floor, which needs no inversion; for id@1 "
        "chance.",
        describe_identification(_pools(group)),
        *(
            ["n: number of attacked images, where these are not all; floors are of the same images."]
            if any(row.partial for row in rows)
            else []
        ),
        *(["± is the standard deviation over seeds."] if any(row.seeds > 1 for row in rows) else []),
        *(["n/a: not available."] if incomplete or without_floor else []),
        *_failures(group.rows),
    ]
