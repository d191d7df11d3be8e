"""Encoded images to pixels of one size, whatever the file's own form."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Literal

import numpy as np
import pydantic
from PIL import Image, ImageFile, ImageOps

from sparseguard.core.config import settings
from sparseguard.core.errors import DataError
from sparseguard.data.readers.base import LARGEST_FILE, Bytes, Content

MOST_PIXELS = 1 << 26
"""An image that declares more pixels is refused."""

UNREADABLE = "unreadable"
"""What the notes say of images that cannot be decoded."""

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pnm"),
}
"""Formats that are read, with the endings of their names. No others are tried: some of pillow's run programs."""

_SIDE = Annotated[int, pydantic.Field(ge=1, le=4096)]
_ROTATED = "turned upright by their EXIF data"
_WIDE = "16 bits a channel, scaled to 8"
_ORIENTATION = 0x0112
_TURNED = range(2, 9)


class LeftOutError(DataError):
    """An image that is left out, and what the notes say of all that are left out for the same reason."""

    def __init__(self, message: str, reason: str = UNREADABLE) -> None:
        super().__init__(message)
        self.reason = reason


@settings
class Look:
    """What every image is made into.

    Args:
        size: height and width in pixels; None: that of the first image, which all others must have.
        channels: 1 grey, 3 colour.
        crop: side in pixels of the square kept from the middle before anything is resized; 0: none, and what does not
            have the proportions of ``size`` is cut to them around the middle.
    """

    size: tuple[_SIDE, _SIDE] | None = None
    channels: Literal[1, 3] = 3
    crop: Annotated[int, pydantic.Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """Pixels ``(h, w, c)`` uint8, and what had to be done to get them."""

    pixels: Bytes
    remarks: tuple[str, ...]


def decode(content: Content, look: Look, *, name: str) -> Decoded:
    """Turn an encoded image, or pixels, into ``(h, w, c)`` uint8.

    In this order: EXIF orientation; 16 bits to 8 (grey by x / 257 rounded, colour by the upper byte, as pillow reads
    it); transparency over white; colour to grey by ITU-R BT.601 luma, grey to colour by repetition; crop; antialiased
    bilinear resize. Of several frames the first is taken.

    Args:
        content: the file's bytes, or ``(h, w)``, ``(h, w, 1)`` or ``(h, w, 3)`` uint8.
        look: what to make of it.
        name: for messages; its ending is compared with the content.

    Raises:
        LeftOutError: for what is no image, is truncated, has more than `MOST_PIXELS` pixels or 32 bits a channel, or is
            smaller than the crop.

    Example:
        >>> import numpy as np
        >>> decode(np.zeros((8, 6), dtype=np.uint8), Look(size=(4, 4), channels=3), name="black").pixels.shape
        (4, 4, 3)
    """
    if isinstance(content, np.ndarray):
        return Decoded(pixels=_shaped(_from_array(content, name), look, name), remarks=())
    if len(content) > LARGEST_FILE:
        raise LeftOutError(f"{name}: larger than {LARGEST_FILE:,} bytes.", f"larger than {LARGEST_FILE:,} bytes")
    try:
        with Image.open(io.BytesIO(content), formats=tuple(FORMATS)) as image:
            if image.width * image.height > MOST_PIXELS:
                told = f"{name}: {image.width} x {image.height} pixels, at most {MOST_PIXELS:,} are read."
                raise LeftOutError(told, f"more than {MOST_PIXELS:,} pixels")
            remarks = _remarks(image, name)
            upright = ImageOps.exif_transpose(image) if _ROTATED in remarks else image
            pixels = _shaped(_plain(upright, name), look, name)
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever their format makes them stumble over
        raise LeftOutError(f"{name}: no readable image ({type(error).__name__}: {error}).") from None
    return Decoded(pixels=pixels, remarks=remarks)


def _remarks(image: ImageFile.ImageFile, name: str) -> tuple[str, ...]:
    found = []
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N") or ";16" in str(image.tile):  # gone once loaded
        found.append(_WIDE)
    kind = "JPEG" if image.format == "MPO" else image.format or ""
    if not name.lower().endswith(FORMATS.get(kind, ())) and PurePosixPath(name).suffix:
        found.append("of another format than their names say")
    if image.getexif().get(_ORIENTATION) in _TURNED:
        found.append(_ROTATED)
    if image.mode in ("CMYK", "YCCK", "LAB", "HSV"):
        found.append(f"converted from {image.mode}")
    if image.mode in ("P", "PA"):
        found.append("converted from a palette")
    if image.has_transparency_data:
        found.append("transparency laid over white")
    if getattr(image, "n_frames", 1) > 1:
        found.append("several frames, the first taken")
    return tuple(found)


def _plain(image: Image.Image, name: str) -> Image.Image:
    """Return the image in mode L or RGB."""
    image.load()
    if image.mode in ("F", "I") and not (image.mode == "I" and image.format in ("PNG", "PPM")):
        told = f"{name}: has 32 bits a channel, whose range is not known. Save it with 8 or 16."
        raise LeftOutError(told, "32 bits a channel, whose range is not known")
    if image.mode.startswith("I"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _from_array(array: Bytes, name: str) -> Image.Image:
    plain = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    fits = array.dtype == np.uint8 and (plain.ndim == 2 or (plain.ndim == 3 and plain.shape[2] == 3))
    if not fits or 0 in array.shape:
        raise LeftOutError(f"{name}: must be uint8 (h, w), (h, w, 1) or (h, w, 3), got {array.dtype} {array.shape}.")
    return Image.fromarray(np.ascontiguousarray(plain))


def _shaped(image: Image.Image, look: Look, name: str) -> Bytes:
    mode = "L" if look.channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if look.crop:
        if look.crop > min(image.size):
            told = f"{name}: {image.width} x {image.height} pixels, smaller than the crop {look.crop}."
            raise LeftOutError(told, f"smaller than the crop {look.crop}")
        image = _middle(image, look.crop, look.crop)
    if look.size is not None and image.size != look.size[::-1]:
        height, width = look.size
        scale = min(image.height / height, image.width / width)
        image = _middle(image, max(1, round(height * scale)), max(1, round(width * scale)))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image).reshape(image.height, image.width, look.channels)


def _middle(image: Image.Image, height: int, width: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
