"""Decoding: against closed forms and torchvision."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from sparseguard.core.errors import DataError
from sparseguard.data.preparation import decode_image as room
from sparseguard.data.preparation.decode_image import DecodedImage, ImageFormat, decode
from support.image_files import encoded, saved

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (10, 14, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (10, 14), dtype=np.uint8)


def test_colour_is_kept_and_grey_is_its_luma() -> None:
    content = saved(Image.fromarray(COLOUR))
    assert (decode(content, ImageFormat(), name="a.png").pixels == COLOUR).all()
    grey = decode(content, ImageFormat(channels=1), name="a.png").pixels
    assert grey.shape == (10, 14, 1)
    assert np.abs(grey[..., 0] - COLOUR @ np.array([0.299, 0.587, 0.114])).max() <= 0.51


def test_grey_becomes_colour_by_repetition() -> None:
    colour = decode(saved(Image.fromarray(GREY)), ImageFormat(channels=3), name="a.png").pixels
    assert (colour == GREY[..., None]).all()


@pytest.mark.parametrize("size", [(5, 7), (20, 28), (6, 6), (3, 13)])
def test_resizing_is_torchvision_s_antialiased_one_of_the_middle(size: tuple[int, int]) -> None:
    mine = decode(COLOUR, ImageFormat(size=size), name="a").pixels
    scale = min(10 / size[0], 14 / size[1])
    height, width = round(size[0] * scale), round(size[1] * scale)
    top, left = (10 - height) // 2, (14 - width) // 2
    middle = torch.from_numpy(COLOUR[top : top + height, left : left + width]).permute(2, 0, 1)
    theirs = tv.resize(middle, list(size), antialias=True).permute(1, 2, 0).numpy()
    assert np.abs(mine.astype(int) - theirs).max() <= 1


def test_the_crop_is_the_middle_square() -> None:
    assert (decode(COLOUR, ImageFormat(crop=4), name="a").pixels == COLOUR[3:7, 5:9]).all()
    with pytest.raises(DataError, match="smaller than the crop"):
        decode(COLOUR, ImageFormat(crop=11), name="a")


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [(2, lambda x: x[:, ::-1]), (3, lambda x: x[::-1, ::-1]), (6, lambda x: np.rot90(x, -1)), (8, np.rot90)],
)
def test_exif_turns_the_image(orientation: int, undo) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(saved(Image.fromarray(GREY), exif=exif.tobytes()), ImageFormat(channels=1), name="a.png")
    assert (found.pixels[..., 0] == undo(GREY)).all()
    assert found.remarks == ("turned upright by their EXIF data",)


def test_sixteen_bits_are_scaled() -> None:
    wide = RNG.integers(0, 65536, (10, 14), dtype=np.uint16)
    found = decode(saved(Image.fromarray(wide)), ImageFormat(channels=1), name="a.png")
    assert (found.pixels[..., 0] == np.rint(wide / 257)).all()
    assert found.remarks == ("16 bits a channel, scaled to 8",)


def test_sixteen_bits_of_colour_are_noted() -> None:
    wide = RNG.integers(0, 65536, (4, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    chunks = [(b"IHDR", struct.pack(">2I5B", 5, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    found = decode(png, ImageFormat(), name="a.png")
    assert (found.pixels == wide >> 8).all()
    assert found.remarks == ("16 bits a channel, scaled to 8",)


def test_other_modes_are_converted_and_noted() -> None:
    palette = Image.fromarray(GREY // 64 * 85).convert("P")
    found = decode(saved(palette), ImageFormat(channels=1), name="a.png")
    assert (found.pixels[..., 0] == GREY // 64 * 85).all()
    assert found.remarks == ("converted from a palette",)
    cmyk = decode(saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"), ImageFormat(), name="a.tif")
    assert (cmyk.pixels == (255, 0, 0)).all()
    assert cmyk.remarks == ("converted from CMYK",)
    layer = np.dstack([COLOUR, np.full((10, 14), 0, np.uint8)])
    clear = decode(saved(Image.fromarray(layer)), ImageFormat(), name="a.png")
    assert (clear.pixels == 255).all()
    assert clear.remarks == ("transparency laid over white",)
    assert (decode(saved(Image.new("1", (4, 4), 1)), ImageFormat(channels=1), name="a.png").pixels == 255).all()


def test_names_of_another_format_are_noted() -> None:
    found = decode(encoded(), ImageFormat(channels=1), name="cat/a.jpg")
    assert found.remarks == ("of another format than their names say",)
    assert decode(encoded(mode="RGB", kind="JPEG"), ImageFormat(), name="cat/A.JPEG").remarks == ()


def test_photos_with_a_second_view_are_jpeg() -> None:
    photo = saved(Image.fromarray(COLOUR), "MPO", save_all=True, append_images=[Image.fromarray(255 - COLOUR)])
    assert decode(photo, ImageFormat(), name="a.jpg").remarks == ("several frames, the first taken",)
    assert decode(encoded(mode="RGB", kind="JPEG"), ImageFormat(), name="a.jfif").remarks == ()


def test_orientations_that_exif_has_not_are_not_told_as_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    found = decode(saved(Image.fromarray(GREY), exif=exif.tobytes()), ImageFormat(channels=1), name="a.png")
    assert (found.pixels[..., 0] == GREY).all()
    assert found.remarks == ()


def test_of_several_frames_the_first_is_taken() -> None:
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    found = decode(saved(first, "TIFF", save_all=True, append_images=[second]), ImageFormat(channels=1), name="a.tif")
    assert (found.pixels[..., 0] == GREY).all()
    assert found.remarks == ("several frames, the first taken",)


def test_what_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"", b"hello", encoded(mode="RGB", kind="JPEG", size=(64, 64))[:-300], encoded()[:-30]):
        with pytest.raises(DataError, match=r"a\.png: no readable image"):
            decode(content, ImageFormat(), name="a.png")
    with pytest.raises(DataError, match="32 bits"):
        decode(saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), ImageFormat(), name="a.tif")
    monkeypatch.setattr(room, "MOST_PIXELS", 40)
    with pytest.raises(DataError, match="at most 40"):
        decode(encoded(), ImageFormat(), name="a.png")


def test_huge_declared_sizes_are_refused_before_memory_is_taken() -> None:
    for side in (9_000, 12_000, 60_000):
        header = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
        png += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 0) + b"IDAT"
        with pytest.raises(DataError):
            decode(png, ImageFormat(), name="a.png")


def test_programs_are_never_run_for_a_format() -> None:
    with pytest.raises(DataError, match="no readable image"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", ImageFormat(), name="a.png")


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]),
    flips=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 255)), max_size=10),
    cut=st.integers(0, 60),
)
def test_damaged_images_are_decoded_or_refused(kind: str, flips: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(encoded(mode="RGB", kind=kind))
    for place, mask in flips:
        damaged[place % len(damaged)] ^= mask
    try:
        found = decode(bytes(damaged[: len(damaged) - cut]), ImageFormat(size=(4, 4)), name="a")
    except DataError:
        return
    assert isinstance(found, DecodedImage)
    assert found.pixels.shape == (4, 4, 3)
