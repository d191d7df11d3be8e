"""MNIST: 70,000 grey images of handwritten digits."""

from __future__ import annotations

from typing import ClassVar

from sparseguard.core.config import settings
from sparseguard.data.datasets._mnist_like import MnistLike


@settings
class Mnist(MnistLike):
    """All of MNIST: 70,000 images, ``(1, 28, 28)``, 10 classes.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
    Proceedings of the IEEE 86(11), 1998.
    """

    name: ClassVar[str] = "mnist"
    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "70,000 grey 28 x 28 images of handwritten digits; from files, or downloaded."
    paper_name: ClassVar[str | None] = "MNIST"
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    flips_keep_class: ClassVar[bool] = False
    torchvision_name: ClassVar[str] = "MNIST"
