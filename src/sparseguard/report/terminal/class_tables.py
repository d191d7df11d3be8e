"""Attacks on classes as tables for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from sparseguard.record import Record
from sparseguard.report.analysis.aggregate import Spread
from sparseguard.report.analysis.class_sections import ClassSection, class_report
from sparseguard.report.analysis.class_summary import ClassMeasure, ClassRow
from sparseguard.report.analysis.grouping import class_sections
from sparseguard.report.terminal.style import empty_table
from sparseguard.report.text.class_wording import (
    ACCURACY,
    AUC,
    DISTANCE,
    LEGEND,
    PSNR,
    SSIM,
    figure_of,
    judge_sentence,
    kind_of,
    mean_of,
    names_of,
    pairing_sentence,
    pool_sentence,
    prior_words,
    set_names,
    slashed,
    title,
    unavailable,
)
from sparseguard.report.text.run_size import scale
from sparseguard.report.text.wording import MISSING, interval, threat_sentence

DEFENSE, ATTACK, LABEL = 14, 15, 17
"""Widths of columns of names, in letters."""
MOST_CLASSES = 10
"""A table of more would not fit in 100 columns."""


def render_classes(records: Sequence[Record]) -> list[Table]:
    """Return the tables of attacks on classes, each fitting in 100 columns.

    Each data set, backbone and threat has one of attack accuracy, one of nearness to private images, one of whole sets
    where they were compared, one class by class where the classes are few, and one of the priors.

    Args:
        records: the cases; those of attacks on images are left out.
    """
    return [table for section in class_sections(records) for table in _tables(section)]


def _tables(records: Sequence[Record]) -> list[Table]:
    section = class_report(records)
    measured = [row for row in section.rows if row.attack]
    tables = [_accuracy(records, section)]
    if measured:
        tables.append(_nearness(section, measured))
        tables += [_sets(section, measured)] if set_names(measured) else []
        tables += [_by_class(section, measured)] if 0 < len(section.classes) <= MOST_CLASSES else []
    return [*tables, *([_priors(section)] if section.priors else [])]


def _accuracy(records: Sequence[Record], section: ClassSection) -> Table:
    table = empty_table(title(section), _notes(records, section))
    table.add_column("defense", overflow="fold", max_width=DEFENSE)
    table.add_column("attack", overflow="fold", max_width=ATTACK)
    table.add_column("target\naccur.", overflow="fold", max_width=6)
    table.add_column("evaluator", overflow="fold", max_width=9)
    table.add_column("attack accuracy@1\n/ chance", overflow="fold", max_width=17)
    for words in ("other\nclass", "starts", "real\nunseen"):
        table.add_column(words, overflow="fold", max_width=6)
    table.add_column("confid.\nanswer\n/best", overflow="fold", max_width=7)
    table.add_column("agree\n(kappa)", overflow="fold", max_width=8)
    for above, row in zip([None, *section.rows], section.rows, strict=False):
        if row.attack is None:
            table.add_row(
                *map(Text, (_within(row.defense, DEFENSE), row.status if row.status == "failed" else "no attack"))
            )
            continue
        again = above is not None and (above.defense, above.tap) == (row.defense, row.tap)
        target = ("", "") if again else (_within(row.defense, DEFENSE), _spread(ACCURACY, row.accuracy))
        told = (target[0], _attack(row), target[1])
        for at, judge in enumerate(_judges(row)):
            lead = told if at == 0 else ("", "", "")
            tail = (_confidence(row), _agreement(row)) if at == 0 else ("", "")
            table.add_row(*map(Text, (*lead, judge, *_cells(row, judge), *tail)))
    return table


def _cells(row: ClassRow, judge: str) -> list[str]:
    name = f"{ACCURACY} ({judge})"
    measure = row.scores.get(name)
    if measure is None:
        return ["n/a"] * 4
    others = [mean_of(name, measure.beside.get(variant)) for variant in ("other_class", "starts", "unseen")]
    return [_with_interval(name, measure, "chance"), *others]


def _with_interval(name: str, measure: ClassMeasure, *variants: str) -> str:
    std = measure.value.std if measure.value else None
    below = f"±{figure_of(name, std)}" if std is not None else interval(measure.ci95, 3)
    return slashed(name, measure, *variants) + (f"\n{below}" if below else "")


def _confidence(row: ClassRow) -> str:
    found = row.confidence
    if found is None:
        return "n/a"
    return f"{mean_of(ACCURACY, found.answer)}\n/{mean_of(ACCURACY, found.best_candidate)}"


def _agreement(row: ClassRow) -> str:
    share, kappa = (row.agreement.get(name) for name in ("share", "kappa"))
    return mean_of(ACCURACY, share) + (f"\n({mean_of(ACCURACY, kappa)})" if kappa else "")


def _nearness(section: ClassSection, rows: Sequence[ClassRow]) -> Table:
    alone = [name for name in names_of(rows) if name not in set_names(rows)]
    missing = any(name in row.scores and row.scores[name].reasons for row in rows for name in alone)
    notes = [
        "Value / chance / unseen: the attack's images; as many made without an attack; the attack's images by the "
        "same rule with never-seen images in place of private ones.",
        pairing_sentence(section),
        "Higher PSNR and SSIM, and lower distance, mean nearer. AUC: how well nearness to the "
        "attack's images tells private from never-seen images of the class; 0.5: not at all.",
        *(["n/a: not available."] if missing else []),
    ]
    table = empty_table(f"{title(section)}: nearness to private images", notes)
    table.add_column("defense:\nattack", overflow="fold", max_width=LABEL)
    table.add_column("evaluator", overflow="fold", max_width=9)
    for words in (DISTANCE, PSNR, SSIM):
        table.add_column(f"{words}\nvalue / chance\n/ unseen", overflow="fold", max_width=18)
    table.add_column("AUC / chance\n[95 %]", overflow="fold", max_width=14)
    for row in rows:
        for at, judge in enumerate(_judges(row)):
            kinds = (f"{kind} ({judge})" for kind in (DISTANCE, PSNR, SSIM))
            scores = [_three(name, row.scores.get(name)) for name in kinds]
            name = f"{AUC} ({judge})"
            auc = _with_interval(name, row.scores[name], "chance") if name in row.scores else ""
            table.add_row(*map(Text, (_label(row) if at == 0 else "", judge, *scores, auc)))
    return table


def _three(name: str, measure: ClassMeasure | None) -> str:
    if measure is None:
        return ""
    std = measure.value.std if measure.value else None
    words = slashed(name, measure, "chance", "unseen").replace(" ", "")
    return words if std is None else f"{words}\n±{figure_of(name, std)}"


def _sets(section: ClassSection, rows: Sequence[ClassRow]) -> Table:
    names = set_names(rows)
    notes = [
        "Value / chance, of all images at once against the private images of the attacked classes. Lower FD, FID and "
        "KID and higher precision, recall, density and coverage mean nearer.",
        *(f"{line}." for line in unavailable(rows)),
    ]
    table = empty_table(f"{title(section)}: sets of images", notes)
    table.add_column("defense:\nattack", overflow="fold", max_width=LABEL)
    for name in names:
        kind, network = kind_of(name)
        table.add_column(f"{kind}\n({network})" if network else kind, overflow="fold", max_width=13)
    for row in rows:
        cells = [_set(name, row.scores[name]) if name in row.scores else "" for name in names]
        table.add_row(*map(Text, (_label(row), *cells)))
    return table


def _set(name: str, measure: ClassMeasure) -> str:
    if measure.value is None:
        return MISSING
    below = [] if measure.value.std is None else [f"±{figure_of(name, measure.value.std)}"]
    lines = [mean_of(name, measure.value), f"/ {mean_of(name, measure.beside.get('chance'))}"]
    return "\n".join([*lines, *below])


def _by_class(section: ClassSection, rows: Sequence[ClassRow]) -> Table:
    judges = [judge.name for judge in section.evaluators]
    notes = [
        f"Lines: attack accuracy@1 by {', by '.join(judges)}; in brackets the target's own confidence in the answer."
    ]
    table = empty_table(f"{title(section)}: class by class", notes)
    table.add_column("defense:\nattack", overflow="fold", max_width=LABEL)
    for name in section.classes:
        table.add_column(name, overflow="fold", max_width=max(7, 82 // len(section.classes) - 1))
    for row in rows:
        cells = []
        for name in section.classes:
            found = row.classes.get(name)
            lines = [mean_of(ACCURACY, found.accuracy.get(judge)) for judge in judges] if found else ["n/a"]
            cells.append("\n".join([*lines, *([f"({mean_of(ACCURACY, found.confidence.answer)})"] if found else [])]))
        table.add_row(*map(Text, (_label(row), *cells)))
    return table


def _priors(section: ClassSection) -> Table:
    table = empty_table(f"{title(section)}: priors", [])
    table.add_column("attack", overflow="fold", max_width=16)
    table.add_column("prior", overflow="fold", max_width=14)
    told = [prior_words(given.prior, section.classes) for given in section.priors]
    for column in told[0]:
        table.add_column(column, overflow="fold", max_width=6 if column == "images" else 16)
    for given, words in zip(section.priors, told, strict=True):
        table.add_row(*map(Text, (", ".join(given.attacks), given.prior.name, *words.values())))
    return table


def _judges(row: ClassRow) -> list[str]:
    """Return the evaluators of a row, one empty name where there are none."""
    found = [network for name in row.scores for kind, network in (kind_of(name),) if kind == ACCURACY]
    return found or [""]


def _attack(row: ClassRow) -> str:
    marks = ["(control)"] if row.control else []
    knows = ["(prior knows\nclasses)"] if row.knows else []
    return "\n".join([_within(row.attack or "", ATTACK), *marks, *knows])


def _label(row: ClassRow) -> str:
    attack = f"{row.attack} (control)" if row.control else row.attack or ""
    return f"{_within(f'{row.defense}:', LABEL)}\n{_within(attack, LABEL)}"


def _within(name: str, width: int) -> str:
    """Break a name where it has spaces or hyphens."""
    return textwrap.fill(name, width)


def _spread(name: str, value: Spread | None) -> str:
    std = value.std if value else None
    return mean_of(name, value) + ("" if std is None else f"\n±{figure_of(name, std)}")


def _notes(records: Sequence[Record], section: ClassSection) -> list[str]:
    rows = section.rows
    flags = dict.fromkeys((row.defense, flag) for row in rows for flag in row.flags)
    failures = dict.fromkeys((row.defense, one) for row in rows for one in row.failures)
    several = any(row.seeds > 1 for row in rows)
    return [
        scale(records),
        f"{threat_sentence(section.threat)} Tap: {', '.join(section.taps)}.",
        pool_sentence(section),
        judge_sentence(section.evaluators),
        LEGEND,
        "Other class: the attack's images taken for another class; starts: candidates without gradients; real "
        "unseen: real images, the most to expect. Best: the best candidate.",
        "Means over seeds; ± is the standard deviation over them." if several else "In square brackets: 95 % interval.",
        *(f"Flag: {defense}: {flag.name}{' (expected)' if flag.expected else ' (!)'}" for defense, flag in flags),
        *(f"Failed: {defense}, seed {one.seed}: {one.reason}" for defense, one in failures),
    ]
