"""The report as one self-contained page."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from sparseguard.errors import StoreError
from sparseguard.record import Pictures, Record
from sparseguard.report.chart import Chart, draw
from sparseguard.report.gallery import Strip, strips
from sparseguard.report.order import cells, sections
from sparseguard.report.table import Row, rows, scale
from sparseguard.report.wording import (
    KNOWLEDGE,
    METRICS,
    PARTS,
    chance,
    gain,
    identification_sentence,
    number,
    threat_sentence,
)


@dataclass(frozen=True)
class Section:
    """What the page shows of one threat, dataset and backbone."""

    title: str
    anchor: str
    meaning: str
    taps: str
    identification: str
    rows: list[Row]
    chart: Chart
    strips: list[Strip]
    records: list[Record]


def write_page(records: Sequence[Record], pictures: Mapping[str, Pictures], path: Path, with_images: bool) -> None:
    """Write records as one HTML page that loads nothing from elsewhere.

    Args:
        records: the cases to show; failed ones are shown with their reason.
        pictures: what lies beside the records, keyed by ``record.case.slug``; read only when ``with_images``.
        path: the page; it appears whole or not at all.
        with_images: put private images and their reconstructions into the page.

    Raises:
        StoreError: when the page cannot be written.
    """
    text = _template().render(
        recipes=", ".join(sorted({record.recipe for record in records})),
        scale=scale(records),
        sections=[_section(own, pictures if with_images else {}) for own in sections(records)],
        with_images=with_images,
        shared=_shared_provenance(records),
        metrics=METRICS,
        parts=PARTS,
        knowledge=KNOWLEDGE,
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


def _section(records: Sequence[Record], pictures: Mapping[str, Pictures]) -> Section:
    own = rows(records)
    first = own[0]
    return Section(
        title=f"{first.threat} · {first.dataset} · {first.backbone}",
        anchor=f"{first.threat}-{first.dataset}-{first.backbone}".replace(" ", "-"),
        meaning=threat_sentence(first.threat),
        taps=", ".join(dict.fromkeys(row.tap for row in own)),
        identification=identification_sentence(next((row.identification for row in own if row.identification), {})),
        rows=own,
        chart=draw(own),
        strips=strips(records, pictures) if pictures else [],
        records=[record for cell in cells(records) for record in cell],
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, gain=gain, chance=chance, flat=_flat)
    source = importlib.resources.files("sparseguard.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source)


def _shared_provenance(records: Sequence[Record]) -> dict[str, str]:
    if not records:
        return {}
    first, *others = (_flat(record.provenance) for record in records)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    plain: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            plain |= _flat(value, f"{before}{name}.")
        else:
            plain[f"{before}{name}"] = str(value)
    return plain
