"""Values of a wrong type meet a sentence of our own."""

import pytest
import torch
from torch import nn

from sparseguard import ImageSet
from sparseguard.core.errors import DataError, RecipeError
from sparseguard.protection.local_updates import UpdateHooks


def test_updates_attach_to_optimizers_of_their_own_model() -> None:
    hooks = UpdateHooks(nn.Linear(2, 2))
    with pytest.raises(RecipeError, match="no parameter of the protected model"):
        hooks.attach(torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))


def test_a_number_is_no_data_set() -> None:
    with pytest.raises(DataError, match="a data set of images is needed, got int"):
        ImageSet.from_dataset(5)
