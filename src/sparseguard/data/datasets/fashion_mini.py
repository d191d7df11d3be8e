"""A small Fashion-MNIST: 10,000 of its images, within the package."""

from __future__ import annotations

import hashlib
import io
from importlib import resources
from typing import ClassVar

import numpy as np
import torch

from sparseguard.core.config import settings
from sparseguard.core.errors import DataError
from sparseguard.data.base import DataSet
from sparseguard.data.datasets.fashion_mnist import CLASSES
from sparseguard.data.splits import SPLIT_PERCENTAGES, partition
from sparseguard.types import ImageSet, Splits

FILE = "fashion_mini.npz"
SHA256 = "31c55d758c66fbc201c05379b3688ba16e3b015a6089a9b382b62969c65e6f0f"


@settings
class FashionMini(DataSet):
    """10,000 images of Fashion-MNIST's training half, ``(1, 28, 28)``, 1,000 of each of the 10 classes, none twice.

    In layout ``sparseguard`` the splits are those of the file; ``scripts/make_fashion_mini.py`` made it.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms", arXiv:1708.07747, 2017; MIT licence, see ``fashion_mini.LICENSE``.
    """

    name: ClassVar[str] = "fashion-mini"
    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "10,000 images of Fashion-MNIST that come with the package: nothing to download."
    paper_name: ClassVar[str | None] = None
    classes: ClassVar[tuple[str, ...]] = CLASSES
    flips_keep_class: ClassVar[bool] = True

    def _read(self) -> Splits:
        with np.load(io.BytesIO(_content()), allow_pickle=False) as arrays:
            images = ImageSet(
                pixels=torch.from_numpy(arrays["images"]).unsqueeze(1),
                labels=torch.from_numpy(arrays["labels"].astype(np.int64)),
                classes=self.classes,
            )
            split_of = torch.from_numpy(arrays["part"])
        if self.layout == "paper":
            return partition(images, name=self.name, layout=self.layout, flips_keep_class=self.flips_keep_class)
        splits = {
            split: images.select((split_of == number).nonzero().squeeze(1))
            for number, split in enumerate(SPLIT_PERCENTAGES)
        }
        return Splits(name=self.name, layout=self.layout, flips_keep_class=self.flips_keep_class, **splits)


def _content() -> bytes:
    file = resources.files("sparseguard.data.datasets") / FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}). Install sparseguard again.") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise DataError(f"{file}: damaged, its SHA-256 is {digest}, expected {SHA256}. Install sparseguard again.")
    return content
