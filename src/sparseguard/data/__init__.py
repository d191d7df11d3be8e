"""Data sets: where the images come from and who may read which of them.

Example:
    >>> from sparseguard.data import DATASETS
    >>> splits = DATASETS["fashion-mini"](private=1000).load()
    >>> {part: len(images) for part, images in splits.by_name().items()}
    {'private': 1000, 'auxiliary': 1500, 'auxiliary_val': 300, 'tuning': 300, 'test': 900}
"""

from __future__ import annotations

from sparseguard.core.component_table import ComponentTable
from sparseguard.data.base import DataSet
from sparseguard.data.datasets.celeba import CelebA
from sparseguard.data.datasets.cifar10 import Cifar10
from sparseguard.data.datasets.fashion_mini import FashionMini
from sparseguard.data.datasets.fashion_mnist import FashionMnist
from sparseguard.data.datasets.image_folder import UserImages
from sparseguard.data.datasets.medical_mnist import MedicalMnist
from sparseguard.data.datasets.mnist import Mnist
from sparseguard.data.splits import balanced_subset, partition

DATASETS: ComponentTable[type[DataSet]] = ComponentTable(
    "sparseguard.datasets",
    DataSet,
    {
        CelebA.name: CelebA,
        Cifar10.name: Cifar10,
        FashionMini.name: FashionMini,
        FashionMnist.name: FashionMnist,
        Mnist.name: Mnist,
        MedicalMnist.name: MedicalMnist,
        UserImages.name: UserImages,
    },
)
"""Every data set by the name a recipe calls it."""

__all__ = [
    "DATASETS",
    "CelebA",
    "Cifar10",
    "DataSet",
    "FashionMini",
    "FashionMnist",
    "MedicalMnist",
    "Mnist",
    "UserImages",
    "balanced_subset",
    "partition",
]
