"""Base of MNIST and Fashion-MNIST: four IDX files of 28 x 28 images, and the folders they may lie in."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import ClassVar

import numpy as np
import pydantic
import torch

from sparseguard.core.config import settings
from sparseguard.core.errors import DataError
from sparseguard.data.base import DataSet
from sparseguard.data.cache import cache_folder, expand_user
from sparseguard.data.readers.idx import Bytes, read_images, read_labels
from sparseguard.data.splits import partition
from sparseguard.types import ImageSet, Splits

HALVES = ("train", "t10k")
FILES = tuple(f"{half}-{kind}-ubyte" for half in HALVES for kind in ("images-idx3", "labels-idx1"))

KNOWN_LABELS = {
    "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13": "mnist",
    "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5": "mnist",
    "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7": "fashion-mnist",
    "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9": "fashion-mnist",
}
"""SHA-256 of the official labels: both sets' files have the same names, so one is easily taken for the other."""


@settings
class MnistLike(DataSet):
    """Settings of a set of MNIST's form; training and test images are merged before they are split.

    Args:
        path: the folder of the four IDX files, or the one torchvision downloaded to. Without it they are searched for
            in the folder the environment variable SPARSEGUARD_DATA names, where the Debian package puts them, and in
            the user's cache folder.
        download: when they are found nowhere, download them with torchvision into the cache folder.

    Raises:
        pydantic.ValidationError: when both are given.
    """

    torchvision_name: ClassVar[str]
    debian_folder: ClassVar[Path | None] = None

    path: Path | None = None
    download: bool = False

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> MnistLike:
        if self.path is not None and self.download:
            raise ValueError("path and download exclude each other; a download goes to the cache folder")
        return self

    def _read(self) -> Splits:
        folder = self._find()
        pixels, labels = zip(*(self._read_half(folder, half) for half in HALVES), strict=True)
        images = ImageSet(
            pixels=torch.from_numpy(np.concatenate(pixels)).unsqueeze(1),
            labels=torch.from_numpy(np.concatenate(labels).astype(np.int64)),
            classes=self.classes,
        )
        return partition(images, name=self.name, layout=self.layout, flips_keep_class=self.flips_keep_class)

    def _read_half(self, folder: Path, half: str) -> tuple[Bytes, Bytes]:
        images_path = _file(folder, f"{half}-images-idx3-ubyte")
        labels_path = _file(folder, f"{half}-labels-idx1-ubyte")
        images, labels = read_images(images_path), read_labels(labels_path)
        if images.shape[1:] != (28, 28):
            height, width = images.shape[1:]
            raise DataError(
                f"{images_path}: holds {height} x {width} images, {self.name} has 28 x 28. "
                "Check path= or SPARSEGUARD_DATA."
            )
        if len(images) != len(labels):
            raise DataError(
                f"{labels_path}: holds {len(labels):,} labels, but {images_path.name} beside it {len(images):,} "
                "images. The two do not belong together; get both again."
            )
        if labels.max() >= len(self.classes):
            first = int(np.argmax(labels >= len(self.classes)))
            raise DataError(
                f"{labels_path}: label {labels[first]} of image {first:,}, expected 0..{len(self.classes) - 1}. "
                "Get the file again."
            )
        actual = KNOWN_LABELS.get(hashlib.sha256(labels.tobytes()).hexdigest(), self.name)
        if actual != self.name:
            raise DataError(
                f"{labels_path}: these are the labels of {actual}, expected {self.name}'s. "
                "Check path= or SPARSEGUARD_DATA."
            )
        return images, labels

    def _find(self) -> Path:
        searched: list[Path] = []
        downloads = cache_folder() / self.torchvision_name / "raw"
        for folder in self._folders():
            searched.append(folder)
            missing = [name for name in FILES if not _is_file(_file(folder, name))]
            if not missing:
                return folder
            if len(missing) < len(FILES) and not (self.download and folder == downloads):
                raise DataError(
                    f"{folder}: {', '.join(missing)} (or .gz) missing beside the others. Add what is missing."
                )
        if self.download:
            self._download()
            return downloads
        places = "".join(f"\n  {folder}" for folder in searched)
        package = f", install Debian's package dataset-{self.name}" if self.debian_folder else ""
        raise DataError(
            f"{self.name}: the files {', '.join(FILES)} (or .gz) were not found. Looked in:{places}\n"
            f"Set path= to their folder{package}, or set download=true."
        )

    def _folders(self) -> Iterator[Path]:
        if self.path is not None:
            folder = expand_user(self.path)
            yield from (folder, folder / self.torchvision_name / "raw")
            return
        if named := os.environ.get("SPARSEGUARD_DATA"):
            folder = expand_user(Path(named))
            yield from (folder / self.name, folder / self.torchvision_name / "raw", folder)
        if self.debian_folder is not None:
            yield self.debian_folder
        yield from (cache_folder() / self.name, cache_folder() / self.torchvision_name / "raw")

    def _download(self) -> None:
        try:
            datasets = importlib.import_module("torchvision.datasets")
        except ImportError:
            raise DataError(
                f'{self.name}: downloading needs torchvision. Run: pip install "sparseguard[download]"'
            ) from None
        try:
            getattr(datasets, self.torchvision_name)(root=str(cache_folder()), download=True)
        except (OSError, EOFError, RuntimeError, ValueError, HTTPException) as error:
            raise DataError(
                f"{self.name}: the download to {cache_folder()} failed ({error}). Try again, or set path=."
            ) from error


def _file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if _is_file(plain) else folder / f"{name}.gz"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise DataError(f"{path}: cannot be looked at ({error.strerror}). Check the folder's rights.") from None
