"""Originals and reconstructions from the pictures beside the records, as inline images, chosen by rule."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sparseguard.record import FeatureInversionAttack, Pictures, Record
from sparseguard.report.analysis.grouping import cells
from sparseguard.report.analysis.per_image import Held, sample
from sparseguard.report.analysis.threat_levels import BASE, chosen_at, levels_of
from sparseguard.report.text.wording import UNDEFENDED, number

EACH = 3
SIDE = 64
LARGEST_SIDE = 128

Picture = UInt8[np.ndarray, "c h w"]


@dataclass(frozen=True)
class Tile:
    """One picture as a data address, how many screen pixels wide it is shown, and the words under it.

    Without an address the image was not attacked.
    """

    address: str
    width: int
    words: str


@dataclass(frozen=True)
class Strip:
    """A line of the grid; without tiles, ``words`` says why."""

    label: str
    words: str
    tiles: tuple[Tile, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """The grid: groups of columns with their sizes, by which rule images were chosen, and its lines."""

    rule: str
    groups: tuple[tuple[str, int], ...]
    strips: tuple[Strip, ...]


def sheet(section: Sequence[Record], held: Held) -> Sheet | None:
    """Return what chosen attackers made of the same images under every defense and level; None without pictures.

    The images are those the chosen outputs attacker reconstructs best, at the median and worst under no defense (or
    under the first defense, where none is not there), of those that were attacked at every level, if these are enough.
    Of several seeds the first one that has pictures is shown.
    """
    every = cells(section)
    shown = [next((one for one in cell if one.status == "ok" and one.case.slug in held), None) for cell in every]
    there = [one for one in shown if one and "original" in held[one.case.slug].gallery]
    if not there:
        return None
    base = next((one for one in there if one.case.defense == UNDEFENDED), there[0])
    groups, rule = _chosen(base, held, _attacked_everywhere(there, held))
    places = [place for _, group in groups for place in group]
    originals = _gallery(base, held[base.case.slug], None)
    strips = [Strip("original", "", tuple(tile(originals.get(at), f"image {at:,}") for at in places))]
    for cell, one in zip(every, shown, strict=True):
        if one is None:
            failed = all(record.status == "failed" for record in cell)
            strips.append(Strip(cell[0].case.defense, "failed" if failed else "no pictures"))
            continue
        strips += [_strip(one, held, level, places) for level in levels_of(one)]
    return Sheet(rule, tuple((name, len(group)) for name, group in groups), tuple(strips))


def _attacked_everywhere(records: Sequence[Record], held: Held) -> set[int]:
    """Return the places of the images that the chosen attacker of every record and level made something of."""
    chosen = [(one, chosen_at(one, level, "psnr")) for one in records for level in levels_of(one)]
    made = [_gallery(one, held[one.case.slug], attacker) for one, attacker in chosen if attacker]
    return set.intersection(*map(set, made)) if made else set()


def _chosen(base: Record, held: Held, everywhere: set[int]) -> tuple[list[tuple[str, list[int]]], str]:
    """Return groups of places of images, and the rule they were chosen by."""
    there = _gallery(base, held[base.case.slug], None)
    level = next((level for level in (BASE, *levels_of(base)) if chosen_at(base, level, "psnr")), None)
    attacker = chosen_at(base, level, "psnr")
    scores = _scores(base, held, attacker) if attacker else {}
    known = [place for place in there if place in scores]
    shared = [place for place in known if place in everywhere]
    ranked = sorted(shared if len(shared) >= 3 * EACH else known, key=lambda place: -scores[place])
    if attacker is None or not ranked:
        return [("first images", list(there)[: 3 * EACH])], "The first images of the gallery."
    rule = (
        f"Of {len(ranked)} private images, the same ones in every case: those that {attacker.name} reconstructs best, "
        f"at the median and worst (PSNR) under {base.case.defense}, seed {base.case.seed}."
    )
    if len(ranked) < 3 * EACH:
        return [("best to worst", ranked)], rule
    middle = (len(ranked) - EACH) // 2
    return [
        ("best", ranked[:EACH]),
        ("median", ranked[middle : middle + EACH]),
        ("worst", ranked[-EACH:]),
    ], rule


def _strip(record: Record, held: Held, level: str, places: Sequence[int]) -> Strip:
    attacker = chosen_at(record, level, "psnr")
    label = f"{record.case.defense}, {level}"
    if attacker is None:
        return Strip(label, "no attacker chosen")
    images = _gallery(record, held[record.case.slug], attacker)
    if not images:
        return Strip(label, f"no pictures of {attacker.name}")
    scores = _scores(record, held, attacker)
    tiles = (tile(images.get(at), f"{number(scores[at], 1)} dB" if at in scores else "") for at in places)
    return Strip(label, f"{attacker.name}, seed {record.case.seed}", tuple(tiles))


def _gallery(record: Record, pictures: Pictures, attacker: FeatureInversionAttack | None) -> dict[int, Picture]:
    """Return pictures by the place of their image; an attacker of some images has pictures of these only."""
    images = pictures.gallery.get(attacker.name if attacker else "original")
    if images is None:
        return {}
    places = record.data.gallery_indices or list(range(len(images)))
    own = attacker.indices.get("private") if attacker else None
    if own is not None:
        attacked = set(own)
        places = [place for place in places if place in attacked]
    return dict(zip(places, images, strict=True)) if len(places) == len(images) else {}


def _scores(record: Record, held: Held, attacker: FeatureInversionAttack) -> dict[int, float]:
    own = sample(record, held, attacker, "private", "psnr")
    return dict(zip(own.places.tolist(), own.values.tolist(), strict=True)) if own else {}


def tile(image: Picture | None, words: str) -> Tile:
    """Return an image in its own size or a thumbnail, shown enlarged by a whole number; None: it was not attacked."""
    if image is None:
        return Tile("", SIDE, "not attacked")
    channels = image if image.shape[0] in (1, 3) else image.mean(axis=0, keepdims=True).astype(np.uint8)
    plain = np.ascontiguousarray(channels.transpose(1, 2, 0))
    picture = Image.fromarray(plain[:, :, 0] if plain.shape[2] == 1 else plain)
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    address = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return Tile(address, picture.width * max(1, round(SIDE / max(picture.size))), words)
