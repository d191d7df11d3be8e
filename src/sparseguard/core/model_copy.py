"""Copies of other people's models, so that theirs stay as they are."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sparseguard.core.errors import DataError


def copy_of(model: object) -> nn.Module:
    """Return a deep copy of a model, uncompiled; the model itself is left as it is.

    Results that a module keeps of earlier calls are copied as values, without what they were computed from.

    Raises:
        DataError: when it is no module, or cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise DataError(f"the model is a {type(model).__name__}, expected a torch.nn.Module.")
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        with torch.no_grad():  # scripted modules copy their weights as if that were to be differentiated
            return _uncompiled(copy.deepcopy(model, computed))
    except Exception as error:  # whatever the model's own parts do
        told = " ".join(str(error).split())[:200]
        raise DataError(
            f"the model cannot be copied ({told}), and the original is left alone. Take out what is in the way, such "
            "as open files, locks, or kept results of earlier calls."
        ) from error


def _uncompiled(model: nn.Module) -> nn.Module:
    """Put what `torch.compile` wrapped in the place of its wrappers, whose inner modules cannot be watched."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            setattr(parent, name, _unwrapped(child))
    return _unwrapped(model)


def _unwrapped(module: nn.Module) -> nn.Module:
    inner = dict(module.named_children()).get("_orig_mod")
    return module if inner is None else inner
