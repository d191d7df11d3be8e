"""Medical MNIST: 58,954 grey images of six kinds of medical scans."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sparseguard.core.config import settings
from sparseguard.data.preparation.decode_image import ImageFormat
from sparseguard.data.preparation.prepared_dataset import PreparedSet
from sparseguard.data.readers.archive import open_images
from sparseguard.data.readers.base import Source


@settings
class MedicalMnist(PreparedSet):
    """All of Medical MNIST: 58,954 images, ``(1, 64, 64)``, 6 classes, numbered by their sorted names.

    A mirrored scan shows the same body region by the same method, so flips keep the class.

    Source: A. P. Lozano, "Medical MNIST Classification", 2017, github.com/apolanco3225/Medical-MNIST-Classification.
    """

    name: ClassVar[str] = "medical-mnist"
    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "58,954 grey 64 x 64 medical scans in 6 classes; from class folders or an archive of them."
    paper_name: ClassVar[str | None] = "Medical MNIST"
    classes: ClassVar[tuple[str, ...]] = ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")
    flips_keep_class: ClassVar[bool] = True
    whole: ClassVar[int | None] = 58_954
    places: ClassVar[tuple[str, ...]] = ("medical-mnist/medical-mnist.tar.gz", "medical-mnist")

    def _source(self, path: Path) -> Source:
        return open_images(path)

    def _image_format(self) -> ImageFormat:
        return ImageFormat(size=(64, 64), channels=1)
