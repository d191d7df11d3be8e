"""Labelled images, and the splits of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparseguard.core.errors import DataError
from sparseguard.core.out_of_core import IMAGES_LIMIT, select_rows

_FINGERPRINT_BYTES = 1 << 22

Images = Float[Tensor, "n c h w"]
Labels = Int[Tensor, " n"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Labelled images of one size.

    Args:
        pixels: ``(n, c, h, w)``, c = 1 or 3; uint8 0-255, or float32 in [0, 1].
        labels: ``(n,)`` int64, indices into ``classes``.
        classes: the classes' names.

    Raises:
        DataError: for another shape or type, a value that is not finite or outside [0, 1], or a label out of range.

    Example:
        >>> import torch
        >>> from sparseguard.types import ImageSet
        >>> images = ImageSet(pixels=torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        ...                   labels=torch.tensor([0, 1]), classes=("cat", "dog"))
        >>> len(images), images.shape
        (2, (1, 4, 4))
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check everything the rest of the program relies on."""
        pixels, labels = self.pixels, self.labels
        if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
            raise DataError(f"images need the shape (n, 1 or 3, h, w), got {tuple(pixels.shape)}.")
        if pixels.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"images must be uint8 or float32, got {pixels.dtype}.")
        if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
            raise DataError(
                f"{len(pixels)} images need as many int64 labels, got {labels.dtype} {tuple(labels.shape)}."
            )
        if pixels.dtype == torch.float32 and len(pixels):
            _check_unit_range(pixels)
        if len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(f"labels must lie in 0..{len(self.classes) - 1}, got {low}..{high}.")

    @classmethod
    def from_arrays(cls, images: Any, labels: Any = None, classes: Sequence[str] | None = None) -> ImageSet:
        """Return the images of a NumPy array or a tensor.

        Args:
            images: ``(n, h, w)``, ``(n, c, h, w)`` or ``(n, h, w, c)`` with c = 1 or 3; uint8 0-255, or floating point
                in [0, 1]. Where both orders of axes would fit, those of an array end with the channels, those of a
                tensor begin with them.
            labels: ``(n,)`` integers or class names; None: all images are of one class, ``unlabeled``.
            classes: names of the classes; None: the labels' numbers, or their sorted names.

        Raises:
            DataError: for another shape or type, values outside [0, 1], or labels that do not fit.

        Example:
            >>> import numpy as np
            >>> from sparseguard.types import ImageSet
            >>> images = ImageSet.from_arrays(np.zeros((2, 4, 4, 3), dtype=np.uint8), ["dog", "cat"])
            >>> images.shape, images.labels.tolist(), images.classes
            ((3, 4, 4), [1, 0], ('cat', 'dog'))
        """
        return cls(**_sources().convert_arrays(images, labels, classes)._asdict())

    @classmethod
    def from_dataset(
        cls, dataset: Any, *, max_images: int | None = None, size: int | tuple[int, int] | None = None
    ) -> ImageSet:
        """Return the images of a torch data set, a data loader or a Hugging Face data set.

        Images may be PIL images, arrays or tensors, as in `from_arrays`. Labels are integers or class names. The
        classes' names are those of the data set's ``classes``, or of its ``ClassLabel`` column.

        Args:
            dataset: yields ``(image, label)`` or rows with the columns ``image`` and ``label``; or a loader of batches
                of these. Its transform must not normalize: values lie in [0, 1].
            max_images: use at most so many. Of a data set with a length they are drawn from the whole with a fixed
                seed; of others they are the first.
            size: height and width, or the side of a square, that images are resized to (bilinear, antialiased); None:
                as they are, which must be all of one size.

        Raises:
            DataError: for no images, images of several sizes, or what `from_arrays` refuses.

        Example:
            >>> import torch
            >>> from torch.utils.data import TensorDataset
            >>> from sparseguard.types import ImageSet
            >>> dataset = TensorDataset(torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 0, 1, 1]))
            >>> images = ImageSet.from_dataset(dataset, size=4)
            >>> len(images), images.shape, images.classes
            (5, (3, 4, 4), ('0', '1'))
        """
        sides = (size, size) if isinstance(size, int) else size
        return cls(**_sources().convert_dataset(dataset, max_images, sides)._asdict())

    @classmethod
    def from_folder(cls, path: str | Path, *, size: int | tuple[int, int] | None = None, channels: int = 3) -> ImageSet:
        """Return the images of class folders (``<class>/<image>``), or of an archive, ``.npz`` or parquet file of them.

        Args:
            path: what the data set `images` takes.
            size: height and width, or the side of a square; images are cut to its proportions around the middle and
                resized (bilinear, antialiased). None: that of the first image, which all must have.
            channels: 1 grey, 3 colour.

        Raises:
            DataError: when there are no images in classes, one cannot be read, or they differ in size.
        """
        if channels not in (1, 3):
            raise DataError(f"channels must be 1 or 3, got {channels!r}.")
        sides = (size, size) if isinstance(size, int) else size
        # The readers lie above this package, so they are imported by name when they are needed.
        reader = import_module("sparseguard.data.image_files")
        images: ImageSet = reader.read_images(Path(path), reader.ImageFormat(size=sides, channels=channels))
        return images

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        c, h, w = self.pixels.shape[1:]
        return int(c), int(h), int(w)

    @property
    def images(self) -> Images:
        """All images as float32 in [0, 1]."""
        return as_unit_float(self.pixels)

    def batch(self, index: Tensor) -> Images:
        """Return the images at ``index`` as float32 in [0, 1]."""
        return as_unit_float(self.pixels[index])

    def select(self, index: Tensor) -> ImageSet:
        """Return the subset at ``index``, on disk where it is large (see `sparseguard.core.out_of_core`)."""
        pixels = select_rows(self.pixels, index, IMAGES_LIMIT)
        return ImageSet(pixels=pixels, labels=self.labels[index], classes=self.classes)

    def fingerprint(self) -> str:
        """Return the SHA-256 of shape, type, pixels, labels and class names."""
        digest = hashlib.sha256(repr((tuple(self.pixels.shape), str(self.pixels.dtype), self.classes)).encode())
        for values in (self.pixels, self.labels):
            row = max(1, values[:1].numel() * values.element_size())
            for chunk in values.split(max(1, _FINGERPRINT_BYTES // row)):
                digest.update(chunk.contiguous().numpy().tobytes())
        return digest.hexdigest()


def _sources() -> ModuleType:
    """Import the conversions on first use; they import pillow."""
    return import_module("sparseguard.types._image_set_sources")


def as_unit_float(pixels: Tensor) -> Tensor:
    """Turn uint8 0-255 into float32 in [0, 1]; leave float32 alone."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _check_unit_range(pixels: Tensor) -> None:
    bad = ~torch.isfinite(pixels)
    if bad.any():
        first = int(bad.flatten(1).any(1).nonzero()[0])
        raise DataError(f"images must be finite: {int(bad.sum())} values are not, the first in image {first}.")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise DataError(f"images must lie in [0, 1], got values in [{low:g}, {high:g}]. Divide 8-bit values by 255.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """Splits of a data set, which say who may read what.

    Args:
        name: the data set's name.
        private: the target trains on these (its early stopping on a tenth of them).
        auxiliary: attackers, dictionaries and priors learn on these.
        auxiliary_val: attackers are stopped and chosen on these.
        tuning: defense settings are chosen on these.
        test: nobody trains on these; accuracy is measured here.
        layout: ``sparseguard`` (design: 70 / 15 / 3 / 3 / 9 %), or ``paper`` (the attacker has all of the other 30 %,
            and accuracy is measured there too, so test images are no unseen ones for the attacker).
        flips_keep_class: whether the mirror image of every image belongs to the same class.
    """

    name: str
    private: ImageSet
    auxiliary: ImageSet
    auxiliary_val: ImageSet
    tuning: ImageSet
    test: ImageSet
    layout: str
    flips_keep_class: bool

    def __post_init__(self) -> None:
        """Check that the splits hold images of one kind."""
        for split, images in self.by_name().items():
            if images.shape != self.private.shape or images.classes != self.private.classes:
                raise DataError(f"{self.name}: split '{split}' differs from 'private' in image size or classes.")
            if len(images) == 0:
                raise DataError(f"{self.name}: split '{split}' is empty; the set is too small to be split.")

    def by_name(self) -> dict[str, ImageSet]:
        """Return the splits by name."""
        return {
            "private": self.private,
            "auxiliary": self.auxiliary,
            "auxiliary_val": self.auxiliary_val,
            "tuning": self.tuning,
            "test": self.test,
        }

    def fingerprints(self) -> dict[str, str]:
        """Return each split's fingerprint."""
        return {split: images.fingerprint() for split, images in self.by_name().items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class AuxiliaryData:
    """Images that the attacker has, drawn from the same distribution as the private ones."""

    train: ImageSet
    val: ImageSet
