"""Data sets: where the images come from and who may read which of them.

Example:
    >>> from sparseguard.data import DATASETS
    >>> splits = DATASETS["fashion-mini"](private=1000).load()
    >>> {part: len(images) for part, images in splits.parts().items()}
    {'private': 1000, 'attacker_train': 1500, 'attacker_val': 300, 'select': 300, 'test': 900}
"""

from __future__ import annotations

from sparseguard.data.base import DataSet
from sparseguard.data.fashion_mini import FashionMini
from sparseguard.data.fashion_mnist import FashionMnist
from sparseguard.data.mnist import Mnist
from sparseguard.data.splits import balanced_subset, partition

DATASETS: dict[str, type[DataSet]] = {
    FashionMini.name: FashionMini,
    FashionMnist.name: FashionMnist,
    Mnist.name: Mnist,
}
"""Every data set by the name a recipe calls it."""

__all__ = ["DATASETS", "DataSet", "FashionMini", "FashionMnist", "Mnist", "balanced_subset", "partition"]
