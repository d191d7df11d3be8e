"""Class inversion as tables for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from sparseguard.record import Record
from sparseguard.report.analysis.aggregate import SeedMean
from sparseguard.report.analysis.class_report import ClassReport
from sparseguard.report.analysis.class_summary import ClassMeasure, ClassRow
from sparseguard.report.terminal.style import count_flags, make_table
from sparseguard.report.text.class_wording import (
    ACCURACY,
    AUC,
    DISTANCE,
    LEGEND,
    PSNR,
    SSIM,
    describe_classes,
    describe_evaluators,
    describe_pairing,
    describe_prior,
    find_score_name,
    format_class_title,
    format_fraction,
    format_score,
    format_score_mean,
    join_scores,
    list_image_scores,
    list_set_scores,
    list_unavailable,
)
from sparseguard.report.text.numbers import MISSING, format_interval, format_mean
from sparseguard.report.text.run_size import describe_run_size

DEFENSE, ATTACK, LABEL = 14, 15, 17
"""Widths of columns of names, in letters."""
MAX_CLASSES = 10
"""A table of more classes would not fit in 100 columns."""


def tabulate_summary(report: ClassReport) -> Table:
    """Return the attack accuracy of each attack beside chance, by every evaluator."""
    notes = [
        "Attack accuracy@1 / chance, by each evaluator: the fraction of an attack's images that it puts into the "
        "attacked class, and that of as many images made without an attack. Flags: of checks, ! not expected.",
        *_failures(report.rows),
    ]
    table = make_table(format_class_title(report), notes)
    table.add_column("defense", overflow="fold", max_width=24)
    table.add_column("attack", overflow="fold", max_width=20)
    table.add_column("accuracy", overflow="fold", max_width=8)
    for evaluator in report.evaluators:
        table.add_column(evaluator.name, overflow="fold", max_width=15)
    table.add_column("flags", overflow="fold", max_width=7)
    for previous, row in zip([None, *report.rows], report.rows, strict=False):
        repeated = row.repeats_target(previous)
        defense, accuracy = ("", "") if repeated else (row.defense, _accuracy(row.accuracy))
        flags = "" if repeated else count_flags(row.flags)
        attack = row.attack or ("failed" if row.status == "failed" else "no attack")
        names = (find_score_name(report, ACCURACY, evaluator.name) for evaluator in report.evaluators)
        scores = [join_scores(report, name, row.scores[name], "chance") if name in row.scores else "" for name in names]
        name = f"{attack} (control)" if row.control else attack
        table.add_row(*map(Text, (defense, name, accuracy, *scores, flags)))
    return table


def tabulate_classes(report: ClassReport, records: Sequence[Record]) -> list[Table]:
    """Return all tables of class inversion, each fitting in 100 columns.

    There is one of attack accuracy, one of nearness to private images, one of whole sets where they were compared, one
    class by class where the classes are few, and one of the priors.
    """
    tables = [_accuracy_table(report, records)]
    if report.measured:
        tables.append(_nearness_table(report))
        tables += [_set_table(report)] if list_set_scores(report) else []
        tables += [_table_by_class(report)] if 0 < len(report.classes) <= MAX_CLASSES else []
    return [*tables, *([_prior_table(report)] if report.priors else [])]


def _accuracy_table(report: ClassReport, records: Sequence[Record]) -> Table:
    table = make_table(format_class_title(report), _notes(report, records))
    table.add_column("defense", overflow="fold", max_width=DEFENSE)
    table.add_column("attack", overflow="fold", max_width=ATTACK)
    table.add_column("target\naccur.", overflow="fold", max_width=6)
    table.add_column("evaluator", overflow="fold", max_width=9)
    table.add_column("attack accuracy@1\n/ chance", overflow="fold", max_width=17)
    for words in ("other\nclass", "starts", "real\nunseen"):
        table.add_column(words, overflow="fold", max_width=6)
    table.add_column("confid.\nanswer\n/best", overflow="fold", max_width=7)
    table.add_column("agree\n(kappa)", overflow="fold", max_width=8)
    for previous, row in zip([None, *report.rows], report.rows, strict=False):
        if row.attack is None:
            state = "failed" if row.status == "failed" else "no attack"
            table.add_row(*map(Text, (textwrap.fill(row.defense, DEFENSE), state)))
            continue
        target = ("", "")
        if not row.repeats_target(previous):
            target = (textwrap.fill(row.defense, DEFENSE), _accuracy(row.accuracy))
        for index, evaluator in enumerate(_evaluators(report, row)):
            lead = (target[0], _attack(row), target[1]) if index == 0 else ("", "", "")
            tail = (_confidence(row), _agreement(row)) if index == 0 else ("", "")
            table.add_row(*map(Text, (*lead, evaluator, *_accuracy_cells(report, row, evaluator), *tail)))
    return table


def _accuracy_cells(report: ClassReport, row: ClassRow, evaluator: str) -> list[str]:
    name = find_score_name(report, ACCURACY, evaluator)
    measure = row.scores.get(name)
    if measure is None:
        return ["n/a"] * 4
    references = (measure.references.get(reference) for reference in ("other_class", "starts", "unseen"))
    return [
        _with_interval(report, name, measure),
        *(format_score_mean(report, name, reference) for reference in references),
    ]


def _with_interval(report: ClassReport, name: str, measure: ClassMeasure) -> str:
    std = measure.value.std if measure.value else None
    digits = report.metrics[name].digits
    below = f"±{format_score(report, name, std)}" if std is not None else format_interval(measure.ci95, digits)
    return join_scores(report, name, measure, "chance") + (f"\n{below}" if below else "")


def _confidence(row: ClassRow) -> str:
    if row.confidence is None:
        return "n/a"
    return f"{format_fraction(row.confidence.answer)}\n/{format_fraction(row.confidence.best_candidate)}"


def _agreement(row: ClassRow) -> str:
    return format_fraction(row.agreement) + (f"\n({format_fraction(row.kappa)})" if row.kappa else "")


def _nearness_table(report: ClassReport) -> Table:
    names = list_image_scores(report)
    missing = any(name in row.scores and row.scores[name].reasons for row in report.measured for name in names)
    notes = [
        "Value / chance / unseen: the attack's images; as many made without an attack; the attack's images by the "
        "same rule with never-seen images in place of private ones.",
        describe_pairing(report),
        "Higher PSNR and SSIM, and lower distance, mean nearer. AUC: how well nearness to the "
        "attack's images separates private from never-seen images of the class; 0.5: not at all.",
        *(["n/a: not available."] if missing else []),
    ]
    table = make_table(f"{format_class_title(report)}: nearness to private images", notes)
    table.add_column("defense:\nattack", overflow="fold", max_width=LABEL)
    table.add_column("evaluator", overflow="fold", max_width=9)
    for words in (DISTANCE, PSNR, SSIM):
        table.add_column(f"{words}\nvalue / chance\n/ unseen", overflow="fold", max_width=18)
    table.add_column("AUC / chance\n[95 %]", overflow="fold", max_width=14)
    for row in report.measured:
        for index, evaluator in enumerate(_evaluators(report, row)):
            scores = [
                _three(report, name, row.scores.get(name))
                for name in (find_score_name(report, label, evaluator) for label in (DISTANCE, PSNR, SSIM))
            ]
            name = find_score_name(report, AUC, evaluator)
            auc = _with_interval(report, name, row.scores[name]) if name in row.scores else ""
            table.add_row(*map(Text, (_label(row) if index == 0 else "", evaluator, *scores, auc)))
    return table


def _three(report: ClassReport, name: str, measure: ClassMeasure | None) -> str:
    if measure is None:
        return ""
    std = measure.value.std if measure.value else None
    words = join_scores(report, name, measure, "chance", "unseen").replace(" ", "")
    return words if std is None else f"{words}\n±{format_score(report, name, std)}"


def _set_table(report: ClassReport) -> Table:
    names = list_set_scores(report)
    notes = [
        "Value / chance, of all images at once against the private images of the attacked classes. Lower FD, FID and "
        "KID and higher precision, recall, density and coverage mean nearer.",
        *(f"{line}." for line in list_unavailable(report.measured)),
    ]
    table = make_table(f"{format_class_title(report)}: sets of images", notes)
    table.add_column("defense:\nattack", overflow="fold", max_width=LABEL)
    for name in names:
        metric = report.metrics[name]
        heading = f"{metric.label}\n({metric.network})" if metric.network else metric.label
        table.add_column(heading, overflow="fold", max_width=13)
    for row in report.measured:
        cells = [_set_cell(report, name, row.scores[name]) if name in row.scores else "" for name in names]
        table.add_row(*map(Text, (_label(row), *cells)))
    return table


def _set_cell(report: ClassReport, name: str, measure: ClassMeasure) -> str:
    if measure.value is None:
        return MISSING
    chance = format_score_mean(report, name, measure.references.get("chance"))
    std = [] if measure.value.std is None else [f"±{format_score(report, name, measure.value.std)}"]
    return "\n".join([format_score_mean(report, name, measure.value), f"/ {chance}", *std])


def _table_by_class(report: ClassReport) -> Table:
    evaluators = [evaluator.name for evaluator in report.evaluators]
    notes = [
        f"Lines: attack accuracy@1 by {', by '.join(evaluators)}; in brackets the target's confidence in the answer."
    ]
    table = make_table(f"{format_class_title(report)}: class by class", notes)
    table.add_column("defense:\nattack", overflow="fold", max_width=LABEL)
    for name in report.classes:
        table.add_column(name, overflow="fold", max_width=max(7, 82 // len(report.classes) - 1))
    for row in report.measured:
        cells = []
        for name in report.classes:
            result = row.classes.get(name)
            lines = [format_fraction(result.accuracy.get(each)) for each in evaluators] if result else ["n/a"]
            lines += [f"({format_fraction(result.confidence.answer)})"] if result else []
            cells.append("\n".join(lines))
        table.add_row(*map(Text, (_label(row), *cells)))
    return table


def _prior_table(report: ClassReport) -> Table:
    table = make_table(f"{format_class_title(report)}: priors", [])
    table.add_column("attack", overflow="fold", max_width=16)
    table.add_column("prior", overflow="fold", max_width=14)
    descriptions = [describe_prior(use.prior, report.classes) for use in report.priors]
    for column in descriptions[0]:
        table.add_column(column, overflow="fold", max_width=6 if column == "images" else 16)
    for use, description in zip(report.priors, descriptions, strict=True):
        table.add_row(*map(Text, (", ".join(use.attacks), use.prior.name, *description.values())))
    return table


def _evaluators(report: ClassReport, row: ClassRow) -> list[str]:
    """Return the evaluators of a row, one empty name where there are none."""
    metrics = (report.metrics.get(name) for name in row.scores)
    names = [metric.network for metric in metrics if metric and metric.label == ACCURACY and metric.network]
    return names or [""]


def _attack(row: ClassRow) -> str:
    marks = ["(control)"] if row.control else []
    known = ["(prior knows\nclasses)"] if row.known_classes else []
    return "\n".join([textwrap.fill(row.attack or "", ATTACK), *marks, *known])


def _label(row: ClassRow) -> str:
    attack = f"{row.attack} (control)" if row.control else row.attack or ""
    return f"{textwrap.fill(f'{row.defense}:', LABEL)}\n{textwrap.fill(attack, LABEL)}"


def _accuracy(value: SeedMean | None) -> str:
    return format_mean(value, 3, separator="\n±", missing="n/a")


def _failures(rows: Iterable[ClassRow]) -> list[str]:
    failures = dict.fromkeys((row.defense, failure) for row in rows for failure in row.failures)
    return [f"Failed: {defense}, seed {failure.seed}: {failure.reason}" for defense, failure in failures]


def _notes(report: ClassReport, records: Sequence[Record]) -> list[str]:
    flags = dict.fromkeys((row.defense, flag) for row in report.rows for flag in row.flags)
    several = any(row.seeds > 1 for row in report.rows)
    return [
        describe_run_size(records),
        f"{report.sentence} Tap: {', '.join(report.taps)}.",
        describe_classes(report),
        describe_evaluators(report.evaluators),
        LEGEND,
        "Other class: the attack's images taken for another class; starts: candidates without gradients; real "
        "unseen: real images, the most to expect. Best: the best candidate.",
        "Means over seeds; ± is the standard deviation over them." if several else "In square brackets: 95 % interval.",
        *(f"Flag: {defense}: {flag.name}{' (expected)' if flag.expected else ' (!)'}" for defense, flag in flags),
        *_failures(report.rows),
    ]
