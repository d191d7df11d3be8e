"""Reading of images of any kind into one image set, without preparing them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sparseguard.core.errors import DataError
from sparseguard.core.out_of_core import IMAGES_LIMIT, allocate
from sparseguard.core.progress import Progress, Silent
from sparseguard.data.preparation.decode_image import ImageFormat, decode
from sparseguard.data.readers.sources import open_source
from sparseguard.types import ImageSet


def read_images(path: Path, look: ImageFormat, progress: Progress | None = None) -> ImageSet:
    """Return all images of class folders, an archive of them, or arrays, decoded; a large set lies on disk.

    Args:
        path: what `sparseguard.data.readers.sources.open_source` takes.
        look: size and channels of every image.
        progress: reports images that were skipped or changed, by name.

    Raises:
        DataError: when there is nothing, an image cannot be read, or sizes differ and none is asked for.
    """
    progress = progress or Silent()
    notes: dict[str, list[str]] = {}
    with open_source(path) as source:
        items = source.items()
        pixels: Tensor | None = None
        with progress.task(f"read {path.name}", len(items)) as advance:
            for index, content in source.stream(items):
                if isinstance(content, DataError):
                    raise content
                name = items[index].name
                decoded = decode(content, look, name=name)
                image = torch.from_numpy(decoded.pixels).permute(2, 0, 1)
                if pixels is None:
                    pixels = allocate((len(items), *image.shape), torch.uint8, IMAGES_LIMIT)
                if image.shape != pixels.shape[1:]:
                    raise DataError(f"{name}: differs in size from the first image. Choose one size for all.")
                for remark in decoded.remarks:
                    notes.setdefault(remark, []).append(name)
                pixels[index] = image
                advance(1)
        classes, skipped = source.classes, source.notes
    for reason, names in {**notes, **skipped}.items():
        progress.say(f"{path}: {len(names):,} images: {reason}, e.g. {names[0]!r}")
    if pixels is None:
        raise DataError(f"{path}: holds no images in classes.")
    return ImageSet(pixels=pixels, labels=torch.tensor([item.label for item in items]), classes=classes)
