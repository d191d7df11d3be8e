"""Pictures of attacks on classes, class by class: private images, and what every attack made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from sparseguard.record import Record
from sparseguard.report.analysis.class_summary import class_rows
from sparseguard.report.analysis.grouping import cells
from sparseguard.report.analysis.per_image import Held
from sparseguard.report.html.gallery import Strip, tile

KINDS = {
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


def class_sheets(section: Sequence[Record], held: Held) -> list[ClassSheet]:
    """Return the pictures of every attacked class; nothing where none lie beside the records.

    Of several seeds the first one that has pictures is shown. Images made without an attack are shown once for an
    attack where they are the same for every defense.
    """
    every = [next((one for one in cell if _has_pictures(one, held)), None) for cell in cells(section)]
    shown = [one for one in every if one]
    if not shown:
        return []
    attacks = list(dict.fromkeys(row.attack for row in class_rows(shown) if row.attack))
    return [_sheet(name, shown, held, attacks) for name in _classes(shown)]


def _has_pictures(record: Record, held: Held) -> bool:
    return record.class_inversion is not None and record.case.slug in held and bool(held[record.case.slug].classes)


def _classes(shown: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for one in shown if one.class_inversion for name in one.class_inversion.classes))


def _sheet(name: str, shown: Sequence[Record], held: Held, attacks: Sequence[str]) -> ClassSheet:
    private = next((found for one in shown if (found := _images(one, held, "private", name)) is not None), None)
    return ClassSheet(
        name=name,
        private=_strip("private images of the class", "", private),
        attacks=tuple(AttackStrips(attack, tuple(_strips(attack, name, shown, held))) for attack in attacks),
    )


def _strips(attack: str, name: str, shown: Sequence[Record], held: Held) -> list[Strip]:
    own = [one for one in shown if any(attacker.name == attack for attacker in one.class_attacks)]
    loose = [_images(one, held, f"{attack}/chance", name) for one in own]
    same = all(found is not None and loose[0] is not None and np.array_equal(found, loose[0]) for found in loose)
    strips = [_strip(KINDS["/chance"], "", loose[0])] if same and own else []
    for one in own:
        for kind, words in KINDS.items():
            if kind != "/chance" or not same:
                found = _images(one, held, f"{attack}{kind}", name)
                strips.append(_strip(f"defense {one.case.defense}: {words}", f"seed {one.case.seed}", found))
    return strips


def _images(record: Record, held: Held, key: str, name: str) -> UInt8[np.ndarray, "n c h w"] | None:
    """Return the pictures of one class; None where there are none, or not one row a class."""
    classes = record.class_inversion.classes if record.class_inversion else []
    rows = held[record.case.slug].classes.get(key)
    if rows is None or rows.ndim != 5 or len(rows) != len(classes) or name not in classes:
        return None
    found: UInt8[np.ndarray, "n c h w"] = rows[classes.index(name)]
    return found


def _strip(label: str, words: str, images: UInt8[np.ndarray, "n c h w"] | None) -> Strip:
    if images is None:
        return Strip(label, "no pictures")
    return Strip(label, words, tuple(tile(image, "") for image in images))
