"""Rows as Hugging Face's `datasets` holds them, and what is to be read of them."""

from __future__ import annotations

from typing import Any

from sparseguard.data import UserImages
from sparseguard.data.preparation.decode_image import ImageFormat, decode
from support.image_files import encoded

CLASSES = ["fox", "cat"]


def rows(library: Any, first: int, count: int, classes: list[str] = CLASSES, **more: list[Any]) -> Any:
    """A dataset of PNG files in a column of images, image k being of class k % 2."""
    features = {"picture": library.Image(), "kind": library.ClassLabel(names=classes)}
    features |= {name: library.Value("int64") for name in more if name not in features}
    numbers = range(first, first + count)
    columns = {
        "picture": [{"bytes": encoded(k, mode="RGB"), "path": None} for k in numbers],
        "kind": [k % 2 for k in numbers],
    }
    return library.Dataset.from_dict(columns | more, features=library.Features(features))


def held(dataset: UserImages) -> set[tuple[bytes, str]]:
    return {
        (image.permute(1, 2, 0).numpy().tobytes(), images.classes[int(label)])
        for images in dataset.load().by_name().values()
        for image, label in zip(images.pixels, images.labels, strict=True)
    }


def expected(count: int) -> set[tuple[bytes, str]]:
    return {
        (decode(encoded(k, mode="RGB"), ImageFormat(), name="").pixels.tobytes(), CLASSES[k % 2]) for k in range(count)
    }
