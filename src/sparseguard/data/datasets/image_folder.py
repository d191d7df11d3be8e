"""Images of the user: class folders, an archive of them, arrays, or a Hugging Face data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic

from sparseguard.core.config import settings
from sparseguard.data.preparation.decode_image import ImageFormat
from sparseguard.data.preparation.prepared_dataset import PreparedSet
from sparseguard.data.readers.base import Source
from sparseguard.data.readers.sources import open_source

_Side = Annotated[int, pydantic.Field(ge=1, le=4096)]


@settings
class UserImages(PreparedSet):
    """Your own images; classes are the sorted names of folders, or of labels, or in a Hugging Face dataset's own order.

    Args:
        path: class folders (``<class>/<image>``), a tar, tar.gz or zip of them, an ``.npz`` file with ``images``
            (``(n, h, w)`` or ``(n, h, w, c)`` uint8) and ``labels`` (``(n,)`` integers or strings), or a Hugging Face
            dataset, all splits of which are merged: the folder that ``save_to_disk`` wrote, parquet files as
            downloaded from the hub, or one of them.
        size: height and width in pixels; None: that of the first image, which all others must have.
        channels: 1 grey, 3 colour.
        crop: side in pixels of the square kept from the middle before resizing; 0: none.
        flips_keep_class: whether the mirror image of every image belongs to the same class; say false for digits,
            letters, or scans whose side matters.
    """

    name: ClassVar[str] = "images"
    revision: ClassVar[int] = 2
    summary: ClassVar[str] = (
        "your own images: class folders or an archive of them, .npz arrays, a Hugging Face dataset."
    )
    paper_name: ClassVar[str | None] = None
    classes: ClassVar[tuple[str, ...]] = ()

    size: tuple[_Side, _Side] | None = None
    channels: Literal[1, 3] = 3
    crop: Annotated[int, pydantic.Field(ge=0)] = 0
    flips_keep_class: bool = True  # type: ignore[misc]

    def _source(self, path: Path) -> Source:
        return open_source(path)

    def _image_format(self) -> ImageFormat:
        return ImageFormat(size=self.size, channels=self.channels, crop=self.crop)
