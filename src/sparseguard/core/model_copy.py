"""Copies of users' models, so that the originals stay unchanged."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sparseguard.core.errors import DataError


def copy_model(model: object) -> nn.Module:
    """Return a deep copy of a model, uncompiled; the original stays unchanged.

    Results of earlier calls that a module stores are copied as values, without their graph.

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
            return _uncompile(copy.deepcopy(model, computed))
    except Exception as error:  # whatever the model's own parts do
        message = " ".join(str(error).split())[:200]
        raise DataError(
            f"the model cannot be copied ({message}), and the original is left alone. Take out what is in the way, "
            "such as open files, locks, or kept results of earlier calls."
        ) from error


def _uncompile(model: nn.Module) -> nn.Module:
    """Replace wrappers of `torch.compile`, whose modules cannot be hooked, by the wrapped modules."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            setattr(parent, name, _unwrap(child))
    return _unwrap(model)


def _unwrap(module: nn.Module) -> nn.Module:
    inner = dict(module.named_children()).get("_orig_mod")
    return module if inner is None else inner
