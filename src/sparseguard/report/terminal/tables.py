"""The report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from sparseguard.record import Record
from sparseguard.report.analysis.aggregate import Difference
from sparseguard.report.analysis.grouping import sections
from sparseguard.report.analysis.matched_accuracy import MAX_DROP, FamilyRow, Matched, matched
from sparseguard.report.analysis.paired_defenses import between_defenses
from sparseguard.report.analysis.per_image import Held
from sparseguard.report.analysis.summary import Measure, Row, rows
from sparseguard.report.terminal.class_tables import render_classes
from sparseguard.report.terminal.style import empty_table
from sparseguard.report.text.run_size import scale
from sparseguard.report.text.wording import (
    DIRECTION,
    METRICS,
    MISSING,
    PARTS,
    UNDEFENDED,
    chance,
    gain,
    identification_sentence,
    interval,
    number,
    threat_sentence,
)
from sparseguard.stats import SIGNIFICANCE


def render(records: Sequence[Record], held: Held | None = None, max_drop: float = MAX_DROP) -> list[Table]:
    """Return the tables, each fitting in 100 columns.

    Each threat, dataset and backbone has one with the scores, one with differences on the same images where there
    are any (of levels to outputs, and of defenses to none), and one with the defenses at matched accuracy. Attacks on
    classes follow with tables of their own.

    Args:
        records: the cases.
        held: what lies beside them, by ``record.case.slug``; without it no defenses are compared image by image.
        max_drop: how much accuracy a setting may lose where defenses are compared at matched accuracy.
    """
    images = [table for section in sections(records) for table in _tables(section, held or {}, max_drop)]
    return images + render_classes(records)


def _tables(section: Sequence[Record], held: Held, max_drop: float) -> list[Table]:
    own = rows(section, held)
    differences = _differences(section, own, held)
    compared = [_matched(found) for found in matched(section, own, max_drop) if found.reason is None]
    return [_table(section, own), *([differences] if differences.row_count else []), *compared]


def _table(section: Sequence[Record], own: Sequence[Row]) -> Table:
    table = empty_table(_title(own[0]), _notes(section, own))
    table.add_column("defense", overflow="fold", max_width=17)
    table.add_column("accuracy", overflow="fold", max_width=9)
    for metric in METRICS.values():
        table.add_column(f"{metric.label}\nprivate/test", overflow="fold", max_width=15)
    table.add_column("attacker\n(level)", overflow="fold", max_width=13)
    table.add_column("flags", overflow="fold", max_width=15)
    for above, row in zip([None, *own], own, strict=False):
        again = above is not None and (above.defense, above.tap) == (row.defense, row.tap)
        table.add_row(*map(Text, _cells(row, again)))
        if row.claim and not again:
            claim = row.claim
            table.add_row(
                *map(Text, (f"paper claims\n({claim.source})", f"{claim.accuracy:.3f}")),
                *map(Text, (number(claim.psnr, METRICS["psnr"].digits), number(claim.ssim, METRICS["ssim"].digits))),
                style="dim",
            )
    return table


def _differences(section: Sequence[Record], own: Sequence[Row], held: Held) -> Table:
    notes = [
        "Image by image on the same private images; in brackets the bootstrap 95 % interval of the mean over images.",
        *(["± is the standard deviation over seeds."] if any(row.seeds > 1 for row in own) else []),
    ]
    table = empty_table(f"{_title(own[0])}: differences", notes)
    table.add_column("first minus second", overflow="fold", max_width=34)
    for metric in METRICS.values():
        table.add_column(metric.label, overflow="fold", max_width=18)
    table.add_column("n", overflow="fold", max_width=8)
    part = PARTS[0]
    for row in own:
        measures = {metric: measure for metric in METRICS if (measure := row.measures[metric].get(part))}
        levels = {metric: one.to_outputs for metric, one in measures.items() if one.to_outputs}
        if levels:
            table.add_row(*map(Text, _line(f"{row.defense}: {row.level} minus black-box", levels)))
    for found in between_defenses(section, held):
        defenses = {metric: by_part[part] for metric, by_part in found.measures.items() if part in by_part}
        if defenses:
            table.add_row(*map(Text, _line(f"{found.level}: {found.defense} minus {UNDEFENDED}", defenses)))
    return table


def _matched(found: Matched) -> Table:
    images = f"{found.n:,} images of " if found.n else ""
    notes = [
        f"Of each defense the setting that leaks least (auxiliary_val) among those shown to lose less than "
        f"{found.max_drop:g} of none's accuracy: Tango's test, one-sided {100 * SIGNIFICANCE:g} %, on "
        f"{images}{' and '.join(found.parts)}. Tap: {found.tap}.",
    ]
    if found.uneven:
        least, most = found.uneven
        notes.append(f"{least} to {most} settings of each were tried; picking from more finds less leak by chance.")
    if found.too_few:
        notes.append("These are too few images to show it of any setting.")
    table = empty_table(f"{found.threat} · {found.dataset} · {found.backbone}: at matched accuracy", notes)
    table.add_column("defense", overflow="fold", max_width=17)
    table.add_column("setting", overflow="fold", max_width=20)
    table.add_column("accuracy\n(drop)", overflow="fold", max_width=9)
    for metric in METRICS.values():
        table.add_column(f"{metric.label}\nprivate/test", overflow="fold", max_width=13)
    table.add_column("qualify\n/tried", overflow="fold", max_width=8)
    for row in found.rows:
        table.add_row(*map(Text, _family(row)))
    return table


def _family(row: FamilyRow) -> list[str]:
    name = f"{row.family}\n(control)" if row.control else row.family
    counts = f"{row.qualified}/{len(row.tried)}" + (f"\n{row.failed} failed" if row.failed else "")
    shown = row.pick or row.best
    accuracy = "" if shown is None or shown.accuracy is None else f"{shown.accuracy.mean:.3f}"
    if shown and shown.drop and row.family != UNDEFENDED:
        accuracy += f"\n({gain(shown.drop.mean, 3)})"
    if row.pick is None:
        words = f"best accuracy: {row.best.label}" if row.best else row.reason
        return [name, f"no setting ({words})", accuracy, "", "", "", counts]
    scores = [
        "/".join(_mean(row.pick.measures.get(metric, {}).get(part), METRICS[metric].digits) for part in PARTS)
        for metric in METRICS
    ]
    label = row.pick.label.removeprefix(row.family).strip() or row.pick.label
    return [name, "" if row.family == UNDEFENDED else label, accuracy, *scores, counts]


def _line(words: str, found: dict[str, Difference]) -> list[str]:
    counts = sorted({one.n for one in found.values()})
    scores = [_difference(found[name], METRICS[name].digits) if name in found else MISSING for name in METRICS]
    return [words, *scores, " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1])))]


def _difference(found: Difference, digits: int) -> str:
    spread = "" if found.std is None else f" ±{number(found.std, digits)}"
    below = interval(found.ci95, digits, signed=True)
    return f"{gain(found.mean, digits)}{spread}" + (f"\n{below}" if below else "")


def _title(row: Row) -> str:
    return f"{row.threat} · {row.dataset} · {row.backbone}"


def _cells(row: Row, again: bool) -> list[str]:
    """Return a row's cells; where the row above is of the same target, what is the same is not said twice."""
    if row.status == "failed":
        return [row.defense, "failed", "", "", "", "", _flags(row)]
    scores = [_scores(row, metric) for metric in METRICS]
    if again:
        return ["", "", *scores, _attackers(row), ""]
    return [row.defense, _accuracy(row), *scores, _attackers(row), _flags(row)]


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
    lines = [means, *([f"({'/'.join(below)})"] if below else [])]
    if any(measure and measure.partial for measure in measures):
        lines.append(f"n={'/'.join(str(measure.n) if measure and measure.n else 'n/a' for measure in measures)}")
    return "\n".join(lines)


def _mean(measure: Measure | None, digits: int) -> str:
    return _number(measure.leaked.mean if measure and measure.leaked else None, digits)


def _number(value: float | None, digits: int) -> str:
    return "n/a" if value is None else number(value, digits)


def _attackers(row: Row) -> str:
    names = dict.fromkeys(name for own in row.chosen.values() for name in own)
    return f"{', '.join(names)}\n({row.level})" if row.level else MISSING


def _flags(row: Row) -> str:
    return "\n".join(f"{flag.name} (expected)" if flag.expected else f"{flag.name} (!)" for flag in row.flags)


def _notes(section: Sequence[Record], own: Sequence[Row]) -> list[str]:
    failures = [(row.defense, one) for row in own for one in row.failures]
    sizes = next((row.identification for row in own if row.identification), {})
    every = [measure for row in own if row.seeds for by_part in row.measures.values() for measure in by_part.values()]
    incomplete = any(len(by_part) < len(PARTS) for row in own if row.seeds for by_part in row.measures.values())
    partial = any(row.partial for row in own)
    return [
        scale(section),
        f"{threat_sentence(own[0].threat, own[0].tap)} Tap: {', '.join(dict.fromkeys(row.tap for row in own))}.",
        f"{DIRECTION} In brackets: the best floor, what needs no inversion; for id@1 chance.",
        identification_sentence(sizes),
        *(["n: so many images were attacked there, not all; floors are of the same images."] if partial else []),
        *(["± is the standard deviation over seeds."] if any(row.seeds > 1 for row in own) else []),
        *(["n/a: not available."] if incomplete or any(measure.floor is None for measure in every) else []),
        *(f"Failed: {defense}, seed {one.seed}: {one.reason}" for defense, one in dict.fromkeys(failures)),
    ]
