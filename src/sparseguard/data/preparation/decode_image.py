"""Decoding of image files to pixels of one size."""

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
"""Reason in the notes for images that cannot be decoded."""

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


class SkippedImageError(DataError):
    """An image that is left out, and the reason that the notes give."""

    def __init__(self, message: str, reason: str = UNREADABLE) -> None:
        super().__init__(message)
        self.reason = reason


@settings
class ImageFormat:
    """Size and channels that every image is decoded to.

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
class DecodedImage:
    """Pixels ``(h, w, c)`` uint8, and remarks on how they were made."""

    pixels: Bytes
    remarks: tuple[str, ...]


def decode(content: Content, image_format: ImageFormat, *, name: str) -> DecodedImage:
    """Turn an encoded image, or pixels, into ``(h, w, c)`` uint8.

    In this order: EXIF orientation; 16 bits to 8 (grey by x / 257 rounded, colour by the upper byte, as pillow reads
    it); transparency over white; colour to grey by ITU-R BT.601 luma, grey to colour by repetition; crop; antialiased
    bilinear resize. Of several frames the first is taken.

    Args:
        content: the file's bytes, or ``(h, w)``, ``(h, w, 1)`` or ``(h, w, 3)`` uint8.
        image_format: size and channels of the result.
        name: for messages; its ending is compared with the content.

    Raises:
        SkippedImageError: for what is no image, is truncated, has more than `MOST_PIXELS` pixels or 32 bits a channel,
            or is smaller than the crop.

    Example:
        >>> import numpy as np
        >>> decode(np.zeros((8, 6), dtype=np.uint8), ImageFormat(size=(4, 4), channels=3), name="black").pixels.shape
        (4, 4, 3)
    """
    if isinstance(content, np.ndarray):
        return DecodedImage(pixels=_crop_and_resize(_from_array(content, name), image_format, name), remarks=())
    if len(content) > LARGEST_FILE:
        raise SkippedImageError(f"{name}: larger than {LARGEST_FILE:,} bytes.", f"larger than {LARGEST_FILE:,} bytes")
    try:
        with Image.open(io.BytesIO(content), formats=tuple(FORMATS)) as image:
            if image.width * image.height > MOST_PIXELS:
                message = f"{name}: {image.width} x {image.height} pixels, at most {MOST_PIXELS:,} are read."
                raise SkippedImageError(message, f"more than {MOST_PIXELS:,} pixels")
            remarks = _remarks(image, name)
            upright = ImageOps.exif_transpose(image) if _ROTATED in remarks else image
            pixels = _crop_and_resize(_to_grey_or_rgb(upright, name), image_format, name)
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever their format makes them stumble over
        raise SkippedImageError(f"{name}: no readable image ({type(error).__name__}: {error}).") from None
    return DecodedImage(pixels=pixels, remarks=remarks)


def _remarks(image: ImageFile.ImageFile, name: str) -> tuple[str, ...]:
    remarks = []
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N") or ";16" in str(image.tile):  # gone once loaded
        remarks.append(_WIDE)
    kind = "JPEG" if image.format == "MPO" else image.format or ""
    if not name.lower().endswith(FORMATS.get(kind, ())) and PurePosixPath(name).suffix:
        remarks.append("of another format than their names say")
    if image.getexif().get(_ORIENTATION) in _TURNED:
        remarks.append(_ROTATED)
    if image.mode in ("CMYK", "YCCK", "LAB", "HSV"):
        remarks.append(f"converted from {image.mode}")
    if image.mode in ("P", "PA"):
        remarks.append("converted from a palette")
    if image.has_transparency_data:
        remarks.append("transparency laid over white")
    if getattr(image, "n_frames", 1) > 1:
        remarks.append("several frames, the first taken")
    return tuple(remarks)


def _to_grey_or_rgb(image: Image.Image, name: str) -> Image.Image:
    """Return the image in mode L or RGB."""
    image.load()
    if image.mode in ("F", "I") and not (image.mode == "I" and image.format in ("PNG", "PPM")):
        message = f"{name}: has 32 bits a channel, whose range is not known. Save it with 8 or 16."
        raise SkippedImageError(message, "32 bits a channel, whose range is not known")
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
        raise SkippedImageError(
            f"{name}: must be uint8 (h, w), (h, w, 1) or (h, w, 3), got {array.dtype} {array.shape}."
        )
    return Image.fromarray(np.ascontiguousarray(plain))


def _crop_and_resize(image: Image.Image, image_format: ImageFormat, name: str) -> Bytes:
    mode = "L" if image_format.channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if image_format.crop:
        if image_format.crop > min(image.size):
            message = f"{name}: {image.width} x {image.height} pixels, smaller than the crop {image_format.crop}."
            raise SkippedImageError(message, f"smaller than the crop {image_format.crop}")
        image = _middle(image, image_format.crop, image_format.crop)
    if image_format.size is not None and image.size != image_format.size[::-1]:
        height, width = image_format.size
        scale = min(image.height / height, image.width / width)
        image = _middle(image, max(1, round(height * scale)), max(1, round(width * scale)))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image).reshape(image.height, image.width, image_format.channels)


def _middle(image: Image.Image, height: int, width: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
