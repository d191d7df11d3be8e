"""Fashion-MNIST: 70,000 grey images of ten kinds of clothing."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sparseguard.core.config import settings
from sparseguard.data.datasets._mnist_like import MnistLike

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@settings
class FashionMnist(MnistLike):
    """All of Fashion-MNIST: 70,000 images, ``(1, 28, 28)``, 10 classes.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms", arXiv:1708.07747, 2017.
    """

    name: ClassVar[str] = "fashion-mnist"
    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "70,000 grey 28 x 28 images of clothing in 10 classes; from files, or downloaded."
    paper_name: ClassVar[str | None] = "Fashion MNIST"
    classes: ClassVar[tuple[str, ...]] = CLASSES
    flips_keep_class: ClassVar[bool] = True
    torchvision_name: ClassVar[str] = "FashionMNIST"
    debian_folder: ClassVar[Path | None] = Path("/usr/share/datasets/fashion-mnist")
