"""Interface of a data set: its splits, and how many images of each are used."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import pydantic

from sparseguard.core.config import settings
from sparseguard.data.splits import Layout, balanced_subset
from sparseguard.types import ImageSet, Splits


@settings
class DataSet(ABC):
    """Settings of a data set; `load` reads it.

    Args:
        layout: of the splits, see `sparseguard.data.splits.partition`.
        private: use this many private images, the same number of each class; None for all.
        auxiliary: the same for the attacker's training images.
        auxiliary_val: the same for the attacker's validation images.
        test: the same for the test images.

    Raises:
        pydantic.ValidationError: for a size smaller than the number of classes, where that is known before reading.
    """

    name: ClassVar[str]
    revision: ClassVar[int]
    """Counts up when the same settings come to give other images or other splits."""
    summary: ClassVar[str]
    paper_name: ClassVar[str | None]
    """The set's name in the paper's tables; None when the paper has no such set."""
    classes: ClassVar[tuple[str, ...]]
    """Empty when they are known only once the set is read; `load` checks the sizes against them then."""
    flips_keep_class: ClassVar[bool]

    layout: Layout = "sparseguard"
    private: int | None = None
    auxiliary: int | None = None
    auxiliary_val: int | None = None
    test: int | None = None

    @pydantic.field_validator("private", "auxiliary", "auxiliary_val", "test")
    @classmethod
    def _check_size(cls, size: int | None) -> int | None:
        least = max(len(cls.classes), 2)
        if size is not None and size < least:
            raise ValueError(f"must be at least {least}, one image of each class")
        return size

    def load(self) -> Splits:
        """Read the set, split it and keep as many images of each split as asked for.

        The splits depend on nothing but the images and the layout. A smaller size gives a subset of a larger one.

        Raises:
            DataError: when files are missing or damaged, a split has fewer images than asked for, or fewer are asked
                for than there are classes.
        """
        splits = self._read()
        return dataclasses.replace(
            splits,
            private=self._limit("private", splits.private, self.private),
            auxiliary=self._limit("auxiliary", splits.auxiliary, self.auxiliary),
            auxiliary_val=self._limit("auxiliary_val", splits.auxiliary_val, self.auxiliary_val),
            test=self._limit("test", splits.test, self.test),
        )

    def _limit(self, split: str, images: ImageSet, size: int | None) -> ImageSet:
        return images if size is None else balanced_subset(images, size, what=f"{self.name}: split '{split}'")

    @abstractmethod
    def _read(self) -> Splits:
        """Return all images, split in the layout asked for."""
