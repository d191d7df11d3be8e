"""Originals and reconstructions from the pictures beside the records, as inline images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sparseguard.record import Pictures, Record
from sparseguard.report.order import cells
from sparseguard.report.wording import KNOWLEDGE, number

SHOWN = 8
SIDE = 64
LARGEST_SIDE = 128


@dataclass(frozen=True)
class Tile:
    """One picture as a data address, how many screen pixels wide it is shown, and the words under it."""

    address: str
    width: int
    words: str


@dataclass(frozen=True)
class Strip:
    """A line of the grid; without tiles, ``words`` says why."""

    label: str
    words: str
    tiles: tuple[Tile, ...] = ()


def strips(section: Sequence[Record], pictures: Mapping[str, Pictures]) -> list[Strip]:
    """Return the originals and, for each defense, what the attacker chosen for PSNR made of them.

    ``pictures`` is keyed by the case's slug. Of several seeds the first one that has pictures is shown.
    """
    originals: list[Strip] = []
    made: list[Strip] = []
    for cell in cells(section):
        shown = next((one for one in cell if one.status == "ok" and one.case.slug in pictures), None)
        if shown is None:
            failed = all(one.status == "failed" for one in cell)
            made.append(Strip(cell[0].case.defense, "failed" if failed else "no pictures"))
            continue
        own = pictures[shown.case.slug]
        if not originals and "original" in own.gallery:
            originals = [Strip("original", "", _tiles(own.gallery["original"], []))]
        made += [_made(shown, own, level) for level in shown.chosen]
    return originals + made


def _made(record: Record, pictures: Pictures, level: str) -> Strip:
    attacker = record.chosen[level].get("psnr", "")
    images = pictures.gallery.get(attacker)
    if images is None:
        return Strip(record.case.defense, f"no pictures of {attacker or 'an attacker'}")
    scores = pictures.scores.get(f"{attacker}/private/psnr")
    places = record.data.get("gallery_index") or []
    known = [] if scores is None else [float(scores[place]) for place in places[:SHOWN] if place < len(scores)]
    knowing = f", knowing {level}" if level in KNOWLEDGE else ""
    return Strip(record.case.defense, f"{attacker}{knowing}, seed {record.case.seed}", _tiles(images, known))


def _tiles(images: UInt8[np.ndarray, "n c h w"], scores: Sequence[float]) -> tuple[Tile, ...]:
    words = [f"{number(score, 1)} dB" for score in scores] + [""] * SHOWN
    return tuple(_tile(image, under) for image, under in zip(images[:SHOWN], words, strict=False))


def _tile(image: UInt8[np.ndarray, "c h w"], words: str) -> Tile:
    channels = image if image.shape[0] in (1, 3) else image.mean(axis=0, keepdims=True).astype(np.uint8)
    plain = np.ascontiguousarray(channels.transpose(1, 2, 0))
    picture = Image.fromarray(plain[:, :, 0] if plain.shape[2] == 1 else plain)
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    address = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return Tile(address, picture.width * max(1, round(SIDE / max(picture.size))), words)
