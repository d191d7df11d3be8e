"""Optimizer hooks that apply the local dictionary updates after each step."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import final
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from sparseguard.core.errors import RecipeError
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
        """Register the update behind each optimizer's step, once; return a handle that removes it again.

        Raises:
            RecipeError: for an object that is no optimizer, or an optimizer of another model's parameters.
        """
        for optimizer in optimizers:
            self._check(optimizer)
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

    def _check(self, optimizer: object) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise RecipeError(f"attach: an optimizer of torch.optim is needed, got {type(optimizer).__name__}.")
        own = {id(parameter) for parameter in self._model.parameters()}
        if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
            raise RecipeError(
                "attach: the optimizer has no parameter of the protected model. Build it from the parameters of the "
                "model that `protect` returned."
            )

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
