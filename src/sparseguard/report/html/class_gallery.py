"""Pictures of class inversion, class by class: private images, and those of every attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from sparseguard.record import Record
from sparseguard.report.analysis.class_report import ClassReport
from sparseguard.report.analysis.per_image import PicturesBySlug
from sparseguard.report.analysis.record_group import RecordGroup
from sparseguard.report.html.pictures import Strip, draw_tile

IMAGES = {
    "/starts": "starts, before the search",
    "": "answer",
    "/nearest": "private images it is compared with",
    "/chance": "chance: made without an attack",
}


@dataclass(frozen=True)
class AttackStrips:
    """The lines of one attack on one class."""

    attack: str
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class ClassSheet:
    """The pictures of one class."""

    name: str
    private: Strip
    attacks: tuple[AttackStrips, ...]


def draw_class_sheets(group: RecordGroup, report: ClassReport) -> list[ClassSheet]:
    """Return the pictures of every attacked class; nothing where none lie beside the records.

    Of several seeds the first one with pictures is shown. Images made without an attack are shown once for an attack
    where they are the same for every defense.
    """
    pictures = group.pictures
    first = [next((record for record in cell if _has_pictures(record, pictures)), None) for cell in group.cells]
    records = [record for record in first if record]
    attacks = [name for name in dict.fromkeys(row.attack for row in report.rows) if name]
    attacks = [name for name in attacks if any(_has_attack(record, name) for record in records)]
    classes = dict.fromkeys(name for record in records for name in _classes(record))
    return [_draw_sheet(name, records, pictures, attacks) for name in classes]


def _has_pictures(record: Record, pictures: PicturesBySlug) -> bool:
    return bool(_classes(record)) and record.case.slug in pictures and bool(pictures[record.case.slug].classes)


def _has_attack(record: Record, name: str) -> bool:
    return any(attack.name == name for attack in record.class_attacks)


def _classes(record: Record) -> list[str]:
    return record.class_inversion.classes if record.class_inversion else []


def _draw_sheet(name: str, records: Sequence[Record], pictures: PicturesBySlug, attacks: Sequence[str]) -> ClassSheet:
    images = (_select(record, pictures, "private", name) for record in records)
    return ClassSheet(
        name=name,
        private=_draw("private images of the class", "", next((each for each in images if each is not None), None)),
        attacks=tuple(AttackStrips(attack, tuple(_strips(attack, name, records, pictures))) for attack in attacks),
    )


def _strips(attack: str, name: str, records: Sequence[Record], pictures: PicturesBySlug) -> list[Strip]:
    attacked = [record for record in records if _has_attack(record, attack)]
    chance = [_select(record, pictures, f"{attack}/chance", name) for record in attacked]
    same = all(each is not None and chance[0] is not None and np.array_equal(each, chance[0]) for each in chance)
    strips = [_draw(IMAGES["/chance"], "", chance[0])] if same and attacked else []
    for record in attacked:
        for ending, words in IMAGES.items():
            if ending != "/chance" or not same:
                images = _select(record, pictures, f"{attack}{ending}", name)
                strips.append(_draw(f"defense {record.case.defense}: {words}", f"seed {record.case.seed}", images))
    return strips


def _select(record: Record, pictures: PicturesBySlug, key: str, name: str) -> UInt8[np.ndarray, "n c h w"] | None:
    """Return the pictures of one class; None where there are none, or not one row a class."""
    classes = _classes(record)
    rows = pictures[record.case.slug].classes.get(key)
    if rows is None or rows.ndim != 5 or len(rows) != len(classes) or name not in classes:
        return None
    images: UInt8[np.ndarray, "n c h w"] = rows[classes.index(name)]
    return images


def _draw(label: str, words: str, images: UInt8[np.ndarray, "n c h w"] | None) -> Strip:
    if images is None:
        return Strip(label, "no pictures")
    return Strip(label, words, tuple(draw_tile(image, "") for image in images))
