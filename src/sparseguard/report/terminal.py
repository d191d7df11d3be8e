"""The report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from sparseguard.record import Record
from sparseguard.report.order import sections
from sparseguard.report.table import Measure, Row, rows, scale
from sparseguard.report.wording import (
    DIRECTION,
    METRICS,
    MISSING,
    PARTS,
    chance,
    identification_sentence,
    number,
    threat_sentence,
)


def render(records: Sequence[Record]) -> list[Table]:
    """Return one table a threat, dataset and backbone, each fitting in 100 columns."""
    return [_table(section) for section in sections(records)]


def _table(section: Sequence[Record]) -> Table:
    own = rows(section)
    first = own[0]
    table = Table(
        title=Text(f"{first.threat} · {first.dataset} · {first.backbone}"),
        caption=Text("\n".join(["", *_notes(section, own)]), justify="left"),
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    table.add_column("defense", overflow="fold", max_width=17)
    table.add_column("accuracy", overflow="fold", max_width=9)
    for metric in METRICS.values():
        table.add_column(f"{metric.label}\nprivate/test", overflow="fold", max_width=15)
    table.add_column("attacker\n(knowing)", overflow="fold", max_width=13)
    table.add_column("flags", overflow="fold", max_width=15)
    for row in own:
        table.add_row(*map(Text, _cells(row)))
        if row.claim:
            claim = row.claim
            table.add_row(
                *map(Text, (f"paper claims\n({claim.source})", f"{claim.accuracy:.3f}")),
                *map(Text, (number(claim.psnr, METRICS["psnr"].digits), number(claim.ssim, METRICS["ssim"].digits))),
                style="dim",
            )
    return table


def _cells(row: Row) -> list[str]:
    if row.status == "failed":
        return [row.defense, "failed", "", "", "", "", _flags(row)]
    return [row.defense, _accuracy(row), *(_scores(row, metric) for metric in METRICS), _attackers(row), _flags(row)]


def _accuracy(row: Row) -> str:
    if row.accuracy is None:
        return MISSING
    spread = "" if row.accuracy.std is None else f"\n±{row.accuracy.std:.3f}"
    return f"{row.accuracy.mean:.3f}{spread}"


def _scores(row: Row, metric: str) -> str:
    measures = [row.measures[metric].get(part) for part in PARTS]
    digits = METRICS[metric].digits
    means = "/".join(_mean(measure, digits) for measure in measures)
    if metric == "id@1":
        below = list(dict.fromkeys(chance(size) for size in row.identification.values()))
    else:
        below = [_number(measure.floor if measure else None, digits) for measure in measures]
    return f"{means}\n({'/'.join(below)})" if below else means


def _mean(measure: Measure | None, digits: int) -> str:
    return _number(measure.leaked.mean if measure and measure.leaked else None, digits)


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else number(value, digits)


def _attackers(row: Row) -> str:
    names = dict.fromkeys(name for own in row.chosen.values() for name in own)
    return f"{', '.join(names)}\n({row.knowledge})" if row.knowledge else MISSING


def _flags(row: Row) -> str:
    return "\n".join(f"{flag.name} (expected)" if flag.expected else f"{flag.name} (!)" for flag in row.flags)


def _notes(section: Sequence[Record], own: Sequence[Row]) -> list[str]:
    failures = [(row.defense, one) for row in own for one in row.failures]
    sizes = next((row.identification for row in own if row.identification), {})
    incomplete = any(len(by_part) < len(PARTS) for row in own if row.seeds for by_part in row.measures.values())
    return [
        scale(section),
        f"{threat_sentence(own[0].threat)} Tap: {', '.join(dict.fromkeys(row.tap for row in own))}.",
        f"{DIRECTION} In brackets: the best floor, what needs no inversion; for id@1 chance.",
        identification_sentence(sizes),
        *(["± is the standard deviation over seeds."] if any(row.seeds > 1 for row in own) else []),
        *(["n/a: not available."] if incomplete else []),
        *(f"Failed: {defense}, seed {one.seed}: {one.reason}" for defense, one in dict.fromkeys(failures)),
    ]
