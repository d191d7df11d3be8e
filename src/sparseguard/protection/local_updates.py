"""Optimizer hooks that apply the local dictionary updates after each step."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import final
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from sparseguard.sparse import SparseCoding


def apply_updates(model: nn.Module) -> None:
    """Apply the local (Hebbian) update of a model's dictionaries, from the training forwards since the last call.

    Call it after each optimizer step, or let `Protected.attach` call it. `hebbian_update` defines the update.
    """
    for module in model.modules():
        if isinstance(module, SparseCoding) and module.hebbian:
            module.apply_update()


@final
class UpdateHooks:
    """Step hooks of one model, at most one an optimizer.

    Args:
        model: the model whose dictionaries are updated.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: MutableMapping[torch.optim.Optimizer, RemovableHandle] = WeakKeyDictionary()

    def attach(self, *optimizers: torch.optim.Optimizer) -> UpdateHandle:
        """Register the update behind each optimizer's step, once; return a handle that removes it again."""
        for optimizer in optimizers:
            if optimizer not in self._handles:
                self._handles[optimizer] = optimizer.register_step_post_hook(self._apply)
        return UpdateHandle(self, optimizers)

    def detach(self, *optimizers: torch.optim.Optimizer) -> None:
        """Remove the update from each optimizer that has it."""
        for optimizer in optimizers:
            handle = self._handles.pop(optimizer, None)
            if handle is not None:
                handle.remove()

    def _apply(self, *_: object) -> None:
        apply_updates(self._model)


@final
class UpdateHandle:
    """Hooks of one model on some optimizers; as a context manager, it removes them at the end of the block.

    Args:
        hooks: the model's hooks.
        optimizers: those it removes them from.
    """

    def __init__(self, hooks: UpdateHooks, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._hooks, self._optimizers = hooks, optimizers

    def remove(self) -> None:
        """Detach: these optimizers no longer apply the local update."""
        self._hooks.detach(*self._optimizers)

    def __enter__(self) -> UpdateHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
