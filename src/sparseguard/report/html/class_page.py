"""What the page shows of attacks on classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sparseguard.record import Record
from sparseguard.report.analysis.class_sections import ClassSection, class_report
from sparseguard.report.analysis.class_summary import ClassRow
from sparseguard.report.analysis.defense_cost import TargetRow, target_rows
from sparseguard.report.analysis.grouping import cells, class_sections
from sparseguard.report.analysis.per_image import Held
from sparseguard.report.html.class_gallery import ClassSheet, class_sheets
from sparseguard.report.text.class_wording import (
    AUC,
    COLUMNS,
    DISTANCE,
    LEGEND,
    PSNR,
    SSIM,
    figure_of,
    judge_sentence,
    kind_of,
    knows_words,
    mean_of,
    names_of,
    note_words,
    pairing_sentence,
    pool_sentence,
    prior_words,
    rule_words,
    set_names,
    slashed,
    title,
    unavailable,
)
from sparseguard.report.text.wording import threat_sentence


@dataclass(frozen=True)
class ClassPage:
    """What the page shows of one data set, backbone and threat to classes; ``measured`` are the rows with scores."""

    title: str
    anchor: str
    meaning: str
    taps: str
    told: ClassSection
    measured: list[ClassRow]
    nearness: list[str]
    sets: list[str]
    targets: list[TargetRow]
    sheets: list[ClassSheet]
    records: list[Record]


FILTERS: dict[str, Callable[..., Any]] = {
    "figure_of": figure_of,
    "mean_of": mean_of,
    "kind_of": kind_of,
    "note": note_words,
    "prior_words": prior_words,
    "rule_words": rule_words,
    "judge_sentence": judge_sentence,
    "pool_sentence": pool_sentence,
    "pairing_sentence": pairing_sentence,
    "unavailable": unavailable,
}
GLOBALS: dict[str, Any] = {
    "knows_words": knows_words,
    "slashed": slashed,
    "class_legend": LEGEND,
    "beside": COLUMNS,
}


def class_pages(records: Sequence[Record], held: Held, with_images: bool) -> list[ClassPage]:
    """Return what the page shows of the attacks on classes among records."""
    return [_page(section, held, with_images) for section in class_sections(records)]


def _page(section: Sequence[Record], held: Held, with_images: bool) -> ClassPage:
    told = class_report(section)
    measured = [row for row in told.rows if row.attack]
    return ClassPage(
        title=title(told),
        anchor=f"classes-{told.threat}-{told.dataset}-{told.backbone}".replace(" ", "-"),
        meaning=threat_sentence(told.threat),
        taps=", ".join(told.taps),
        told=told,
        measured=measured,
        nearness=[name for name in names_of(measured) if name.startswith((DISTANCE, PSNR, SSIM, AUC))],
        sets=set_names(measured),
        targets=target_rows(section),
        sheets=class_sheets(section, held) if with_images else [],
        records=[record for cell in cells(section) for record in cell],
    )
