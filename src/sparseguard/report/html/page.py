"""The report as one self-contained page."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from sparseguard.core.errors import StoreError
from sparseguard.record import FeatureInversionAttack, Record
from sparseguard.report.analysis.aggregate import Spread, intervals
from sparseguard.report.analysis.bounds import BoundTable, bound_tables, figure, key_words
from sparseguard.report.analysis.controls import Control, cell_controls
from sparseguard.report.analysis.defense_cost import TargetRow, columns, target_rows
from sparseguard.report.analysis.grouping import cells, sections
from sparseguard.report.analysis.matched_accuracy import MAX_DROP, Matched, matched
from sparseguard.report.analysis.paired_defenses import DefenseDifference, between_defenses
from sparseguard.report.analysis.pareto import pareto
from sparseguard.report.analysis.per_image import Held
from sparseguard.report.analysis.summary import Row, rows
from sparseguard.report.analysis.threat_levels import (
    chosen_at,
    is_control,
    level_of,
    level_sentence,
    levels_of,
    setting_words,
)
from sparseguard.report.charts.learning_curves import CurveChart, curve_charts
from sparseguard.report.charts.overview import Chart, draw
from sparseguard.report.charts.pareto import ParetoChart, draw_pareto
from sparseguard.report.html.class_page import FILTERS, GLOBALS, class_pages
from sparseguard.report.html.gallery import Sheet, sheet
from sparseguard.report.text.run_size import HANDED_OVER, scale
from sparseguard.report.text.wording import (
    METRICS,
    PARTS,
    chance,
    gain,
    identification_sentence,
    interval,
    metric_of,
    number,
    threat_sentence,
)
from sparseguard.report.verdict import Verdict, verdict
from sparseguard.stats import SIGNIFICANCE, Interval


@dataclass(frozen=True)
class Section:
    """What the page shows of one threat, dataset and backbone; verdicts are those of audits."""

    title: str
    anchor: str
    verdicts: list[Verdict]
    meaning: str
    taps: str
    identification: str
    rows: list[Row]
    chart: Chart
    differences: list[DefenseDifference]
    controls: list[Control]
    matched: list[Matched]
    pareto: list[ParetoChart]
    targets: list[TargetRow]
    sheet: Sheet | None
    curves: list[CurveChart]
    bounds: list[BoundTable]
    intervals: dict[str, dict[tuple[str, str, str], Interval]]
    records: list[Record]


def write_page(
    records: Sequence[Record], pictures: Held, path: Path, with_images: bool, max_drop: float = MAX_DROP
) -> None:
    """Write records as one HTML page that loads nothing from elsewhere.

    Args:
        records: the cases to show; failed ones are shown with their reason.
        pictures: what lies beside the records, by ``record.case.slug``. Its scores are always used: for intervals,
            floors on the same images and differences between defenses. Its pictures are, when ``with_images``.
        path: the page; it appears whole or not at all.
        with_images: put private images and their reconstructions into the page.
        max_drop: how much accuracy a setting may lose where defenses are compared at matched accuracy.

    Raises:
        RecipeError: when ``max_drop`` is not between 0 and 1.
        StoreError: when the page cannot be written.
    """
    shown = [_section(own, pictures, with_images, max_drop) for own in sections(records)]
    classes = class_pages(records, pictures, with_images)
    text = _template().render(
        recipes=", ".join(sorted({record.recipe for record in records})),
        scale=scale(records),
        sections=shown,
        class_sections=classes,
        cases=[record for each in shown for record in each.records] + [one for each in classes for one in each.records],
        with_images=with_images,
        with_scores=bool(pictures),
        shared=_shared_provenance(records),
    )
    aside = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, path)  # noqa: PTH105
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: the page cannot be written ({error.strerror or error}).") from error


def _section(records: Sequence[Record], pictures: Held, with_images: bool, max_drop: float) -> Section:
    own = rows(records, pictures)
    first = own[0]
    return Section(
        title=f"{first.threat} · {first.dataset} · {first.backbone}",
        anchor=f"{first.threat}-{first.dataset}-{first.backbone}".replace(" ", "-"),
        verdicts=[verdict(record) for record in records if record.data.layout == HANDED_OVER],
        meaning=threat_sentence(first.threat, first.tap),
        taps=", ".join(dict.fromkeys(row.tap for row in own)),
        identification=identification_sentence(next((row.identification for row in own if row.identification), {})),
        rows=own,
        chart=draw(own),
        differences=between_defenses(records, pictures),
        controls=[control for cell in cells(records) for control in cell_controls(cell, pictures)],
        matched=matched(records, own, max_drop),
        pareto=[draw_pareto(found, max_drop) for found in pareto(records, own)],
        targets=target_rows(records),
        sheet=sheet(records, pictures) if with_images else None,
        curves=curve_charts(records),
        bounds=bound_tables(records),
        intervals={record.case.slug: intervals(record, pictures) for record in records},
        records=[record for cell in cells(records) for record in cell],
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=number,
        gain=gain,
        chance=chance,
        interval=interval,
        flat=_flat,
        metric=metric_of,
        level=level_of,
        level_sentence=level_sentence,
        words=setting_words,
        is_control=is_control,
        columns=columns,
        key_words=key_words,
        figure=_figure,
        **FILTERS,
    )
    environment.globals.update(
        metrics=METRICS, parts=PARTS, is_chosen=_is_chosen, level_of_test=SIGNIFICANCE, **GLOBALS
    )
    return environment.get_template("page.html.j2")


def _source(name: str) -> str:
    return importlib.resources.files("sparseguard.report.html").joinpath("templates", name).read_text(encoding="utf-8")


def _is_chosen(record: Record, attacker: FeatureInversionAttack, metric: str) -> bool:
    return any(chosen_at(record, level, metric) == attacker for level in levels_of(record))


def _figure(value: Spread, key: str) -> str:
    return figure(key, value)


def _shared_provenance(records: Sequence[Record]) -> dict[str, str]:
    if not records:
        return {}
    first, *others = (_flat(record.provenance.model_dump(exclude_none=True)) for record in records)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    plain: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            plain |= _flat(value, f"{before}{name}.")
        else:
            plain[f"{before}{name}"] = str(value)
    return plain
