"""Pictures of the page as inline PNG images."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

SIDE = 64
LARGEST_SIDE = 128

Picture = UInt8[np.ndarray, "c h w"]


@dataclass(frozen=True)
class Tile:
    """One picture as a data address, its width in screen pixels, and the words under it.

    Without an address the image was not attacked.
    """

    address: str
    width: int
    words: str


@dataclass(frozen=True)
class Strip:
    """A line of pictures; without tiles, ``words`` says why."""

    label: str
    words: str
    tiles: tuple[Tile, ...] = ()


def draw_tile(image: Picture | None, words: str) -> Tile:
    """Return an image in its own size or a thumbnail, enlarged by a whole number; None: it was not attacked."""
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
