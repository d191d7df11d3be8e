"""Section with differences on the same images: of each defense to none, and of each adversary to black-box."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from sparseguard.record import Record
from sparseguard.report.analysis.adversary import (
    BLACK_BOX,
    Adversary,
    find_chosen_attack,
    list_adversaries,
    sort_adversaries,
)
from sparseguard.report.analysis.aggregate import Difference, average_differences
from sparseguard.report.analysis.names import SPLITS, UNDEFENDED
from sparseguard.report.analysis.per_image import (
    ImageScores,
    PicturesBySlug,
    same_images,
    select_image_scores,
    subtract,
)
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section
from sparseguard.report.terminal.style import format_group_title, make_table
from sparseguard.report.text.numbers import MISSING, format_interval, format_number, format_signed

Pairs = Sequence[tuple[Record, Record]]


@dataclass(frozen=True)
class DefenseDifference:
    """A defense minus none, both with the attack chosen for the same adversary; by metric, then by split."""

    dataset: str
    backbone: str
    threat: str
    tap: str
    defense: str
    knowledge: str
    queries: int
    measures: dict[str, dict[str, Difference]]

    @property
    def label(self) -> str:
        """The adversary in a few words."""
        return Adversary(self.knowledge, self.queries).label


@dataclass(frozen=True)
class DifferenceData:
    """The differences of a group."""

    group: RecordGroup
    defenses: list[DefenseDifference]

    @property
    def several_defenses(self) -> bool:
        """Whether there is something to compare."""
        return len({cell[0].case.defense for cell in self.group.cells}) > 1


class Differences(Section[DifferenceData]):
    """Differences image by image."""

    kinds = (Kind.FEATURE_INVERSION,)
    keys = ("differences",)

    def collect(self, group: RecordGroup) -> DifferenceData | None:
        """Return the differences of every defense to none."""
        return DifferenceData(group, compare_defenses(group))

    def html(self, data: DifferenceData) -> str:
        """Return a table with a row a defense and adversary."""
        return render_html(
            "differences.html.j2",
            differences=data.defenses,
            metrics=data.group.metrics,
            missing_scores=data.several_defenses and not data.group.pictures,
        )

    def terminal(self, data: DifferenceData) -> list[Table]:
        """Return one table of differences on private images, where there are some."""
        table = _table(data)
        return [table] if table.row_count else []

    def json(self, data: DifferenceData) -> dict[str, list[Any]]:
        """Return ``differences``."""
        return {"differences": data.defenses}


def compare_defenses(group: RecordGroup) -> list[DefenseDifference]:
    """Return every defense's differences to none; nothing where files do not hold the scores of each image."""
    if not group.pictures:
        return []
    cells = [[record for record in cell if record.status == "ok"] for cell in group.cells]
    bases = {
        (record.case.tap, record.case.seed): record
        for cell in cells
        for record in cell
        if record.case.defense == UNDEFENDED
    }
    differences = []
    for cell in cells:
        pairs = [(record, base) for record in cell if (base := bases.get((record.case.tap, record.case.seed)))]
        if not pairs or pairs[0][0].case.defense == UNDEFENDED:
            continue
        case = pairs[0][0].case
        for adversary in sort_adversaries(each for record, _ in pairs for each in list_adversaries(record)):
            measures = _measures(pairs, group.pictures, adversary, group.metrics)
            if any(measures.values()):
                axes = (case.dataset, case.backbone, case.threat, case.tap, case.defense)
                differences.append(DefenseDifference(*axes, adversary.knowledge, adversary.queries, measures))
    return differences


def _measures(
    pairs: Pairs, pictures: PicturesBySlug, adversary: Adversary, metrics: Collection[str]
) -> dict[str, dict[str, Difference]]:
    measures: dict[str, dict[str, Difference]] = {}
    for metric in metrics:
        measures[metric] = {}
        for split in SPLITS:
            seeds = [
                (record.case.seed, scores)
                for record, base in pairs
                if (scores := _subtract(record, base, pictures, adversary, metric, split))
            ]
            if difference := average_differences(seeds):
                measures[metric][split] = difference
    return measures


def _subtract(
    record: Record, base: Record, pictures: PicturesBySlug, adversary: Adversary, metric: str, split: str
) -> ImageScores | None:
    attack, base_attack = find_chosen_attack(record, adversary, metric), find_chosen_attack(base, adversary, metric)
    if attack is None or base_attack is None or not same_images(record, base, split):
        return None
    first = select_image_scores(record, pictures, attack, split, metric)
    second = select_image_scores(base, pictures, base_attack, split, metric)
    return subtract(first, second) if first and second else None


def _table(data: DifferenceData) -> Table:
    group, split = data.group, SPLITS[0]
    notes = [
        "Image by image on the same private images; in brackets the bootstrap 95 % interval of the mean over images.",
        *(["± is the standard deviation over seeds."] if any(row.seeds > 1 for row in group.rows) else []),
    ]
    table = make_table(f"{format_group_title(group)}: differences", notes)
    table.add_column("first minus second", overflow="fold", max_width=34)
    for metric in group.metrics.values():
        table.add_column(metric.label, overflow="fold", max_width=18)
    table.add_column("n", overflow="fold", max_width=8)
    for row in group.rows:
        measures = {metric: measure for metric, splits in row.measures.items() if (measure := splits.get(split))}
        knowledge = {metric: each.to_black_box for metric, each in measures.items() if each.to_black_box}
        if knowledge:
            table.add_row(*_line(f"{row.defense}: {row.label} minus {BLACK_BOX.label}", knowledge, group))
    for each in data.defenses:
        defenses = {metric: splits[split] for metric, splits in each.measures.items() if split in splits}
        if defenses:
            table.add_row(*_line(f"{each.label}: {each.defense} minus {UNDEFENDED}", defenses, group))
    return table


def _line(words: str, differences: dict[str, Difference], group: RecordGroup) -> list[Text]:
    counts = [each.n for each in differences.values()]
    n = " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))
    scores = [_format(differences.get(name), metric.digits) for name, metric in group.metrics.items()]
    return [Text(cell) for cell in (words, *scores, n)]


def _format(difference: Difference | None, digits: int | None) -> str:
    if difference is None:
        return MISSING
    std = "" if difference.std is None else f" ±{format_number(difference.std, digits)}"
    interval = format_interval(difference.ci95, digits, signed=True)
    return f"{format_signed(difference.mean, digits)}{std}" + (f"\n{interval}" if interval else "")
