"""Conversion of what users have (data sets, loaders, arrays, folders) to image sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from sparseguard.core.errors import DataError
from sparseguard.types import ImageSet


@runtime_checkable
class SizedDataset(Protocol):
    """A map-style data set: a torch `Dataset`, torchvision's `ImageFolder`, a Hugging Face data set."""

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return one example."""
        ...


ImageSource = ImageSet | SizedDataset | DataLoader[Any] | npt.NDArray[Any] | Tensor | tuple[Any, Any] | str | Path
"""Everything that an audit takes as images."""

UNLABELED = ("unlabeled",)
"""Classes of an image set without labels."""


def to_image_set(source: Any, name: str) -> ImageSet:
    """Return an image set.

    Args:
        source: an `ImageSource`: an `ImageSet`; a torch `Dataset` or its `DataLoader`; a Hugging Face data set; images,
            or a pair of images and labels, as arrays or tensors; or the path of a folder with one folder a class.
        name: of the argument, for messages.

    Raises:
        DataError: for anything else, or images that cannot be used; the message begins with ``name``.
    """
    try:
        return _convert(source)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _convert(source: Any) -> ImageSet:
    match source:
        case ImageSet():
            return source
        case np.ndarray() | Tensor():
            return ImageSet.from_arrays(source)
        case (np.ndarray() | Tensor() as images, labels):
            return ImageSet.from_arrays(images, labels)
        case str() | Path():
            return ImageSet.from_folder(Path(source))
        case DataLoader() | IterableDataset():
            return ImageSet.from_dataset(source)
        case Sequence() if not len(source):
            raise DataError("there are no images.")
        case SizedDataset():
            return ImageSet.from_dataset(source)
    raise DataError(
        f"expected an ImageSet, a Dataset, a DataLoader, arrays, tensors or a folder, got a {type(source).__name__}."
    )


def require_labels(images: ImageSet, name: str) -> None:
    """Check that images have labels.

    Raises:
        DataError: when they have none.
    """
    if images.classes == UNLABELED:
        raise DataError(f"{name}: the images have no labels; give a pair (images, labels), or a data set with labels.")


def share_classes(first: ImageSet, second: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Give both sets the longer list of classes, where the other list is its beginning, or has no labels."""
    if UNLABELED in (first.classes, second.classes) and first.classes != second.classes:
        classes = second.classes if first.classes == UNLABELED else first.classes
        return replace(first, classes=classes), replace(second, classes=classes)
    classes = max(first.classes, second.classes, key=len)
    if any(classes[: len(images.classes)] != images.classes for images in (first, second)):
        return first, second
    return replace(first, classes=classes), replace(second, classes=classes)
