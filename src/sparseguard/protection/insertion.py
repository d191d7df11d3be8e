"""Insertion of a front into a copy of the model, and the reasons why one cannot be inserted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor, nn

from sparseguard.core.errors import DataError, RecipeError, nearest
from sparseguard.core.model_copy import copy_model
from sparseguard.core.staged_model import resize_in_channels
from sparseguard.protection.front import Emit, Learn, ProtectedLayer, build_front
from sparseguard.protection.local_updates import UpdateHandle, UpdateHooks, apply_updates
from sparseguard.protection.summary import Changes, Trace, trace_inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Protected:
    """A protected model and its differences from the user's.

    Args:
        model: a new one; `attach` its optimizer, then train it as any other.
        changes: the differences.
    """

    model: nn.Module
    changes: Changes
    _hooks: UpdateHooks = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hooks", UpdateHooks(self.model))

    def attach(self, *optimizers: torch.optim.Optimizer) -> UpdateHandle:
        """Apply the local update of the dictionaries after every step of these optimizers.

        A second call for the same optimizer changes nothing. With several optimizers, the update follows the step of
        each: the first step applies what the training forwards collected, the others find nothing new.

        Args:
            optimizers: those that train the model.

        Returns:
            A handle whose ``remove`` detaches them; as a context manager, it does so at the end of the block.

        Example:
            >>> import torch
            >>> from torch import nn
            >>> import sparseguard as sg
            >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
            >>> protected = sg.protect(model, before="0", example=torch.rand(2, 3, 8, 8))
            >>> optimizer = torch.optim.SGD(protected.model.parameters(), lr=0.01)
            >>> with protected.attach(optimizer):
            ...     loss = protected.model(torch.rand(2, 3, 8, 8)).square().mean()
            ...     loss.backward()
            ...     optimizer.step()
        """
        return self._hooks.attach(*optimizers)

    def apply_updates(self) -> None:
        """Apply the local update now, for training loops without an optimizer to `attach`."""
        apply_updates(self.model)


def protect(
    model: nn.Module,
    *,
    before: str,
    example: Tensor,
    features: Sequence[int] = (16, 28),
    lambd: float = 0.5,
    kernel_size: int = 5,
    steps: Sequence[int] = (20, 8),
    emit: Emit = "codes",
    learn: Learn = "both",
    seed: int = 0,
) -> Protected:
    """Return a copy of a model with a sparse-coding front before one of its modules.

    With ``codes`` the front is pairs of sparse layer and batch normalization. The module's input is the last layer's
    codes, and its first convolution is replaced by a new one for their number. With ``reconstruction`` each layer
    returns the reconstruction of its input, in the input's shape and scale; there is no normalization, and no weight of
    the model is replaced. The model itself stays unchanged; the copy of a compiled model is not compiled.

    Args:
        model: any module whose forward takes images.
        before: the module's name in ``model.named_modules()``, such as ``conv1`` of a ResNet. For ``codes`` a
            `Conv2d`, or a `Sequential` that begins with one.
        example: images ``(n, c, h, w)`` as the model takes them, on its device.
        features: atoms of each sparse layer.
        lambd: sparsity weight of every layer; its input is standardized, so it means the same at any scale.
        kernel_size: side of the atoms; odd.
        steps: solver steps of each layer.
        emit: the module's new input.
        learn: how every dictionary but the first is learned: by gradients (``backprop``), the ``local`` update
            (`Protected.attach`), ``both``, or not at all. The first stays random, as in `sca`.
        seed: of the random atoms and the new convolution.

    Raises:
        RecipeError: for a name the model does not have (the message lists the names), a module that cannot have such a
            front, or a setting out of range.
        DataError: for an example of another kind, or one that the model does not take, or a model that cannot be
            clone.

    Source: Dibbo et al., ECCV 2024, section 3, for ``codes``.

    Differs: ``reconstruction`` is ours. It keeps each image's mean and contrast.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import sparseguard as sg
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
        >>> protected = sg.protect(model, before="0", example=torch.rand(2, 3, 8, 8))
        >>> changes = protected.changes
        >>> protected.model(torch.rand(2, 3, 8, 8)).shape, changes.front_output, changes.reinitialized
        (torch.Size([2, 5]), (28, 8, 8), ('0.layer.weight', '0.layer.bias'))
    """
    check_arguments(features, steps, emit, learn, example)
    clone = copy_model(model)
    if lazy := [name for name, weight in clone.named_parameters() if isinstance(weight, nn.UninitializedParameter)]:
        raise DataError(f"the model's '{lazy[0]}' gets its size in the first call; run the model on the example first.")
    try:
        original = trace_inputs(clone, example)
    except Exception as error:  # the model's own code
        raise DataError(f"example: the model does not take {tuple(example.shape)} ({_one_line(error)}).") from error
    front_input = _find_front_input(clone, before, emit, original)
    layer, replaced = clone.get_submodule(before), ""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        front = build_front(front_input[0], features, steps, emit, learn, lambd, kernel_size)
        conv = _first_conv(layer, f"{before}.layer") if emit == "codes" else None
        if conv is not None:
            replaced = conv[0]
            resize_in_channels(conv[1], features[-1])
    front.to(device=example.device).train(layer.training)
    protected = ProtectedLayer(front, layer)
    for name in [name for name, module in clone.named_modules(remove_duplicate=False) if module is layer]:
        clone.set_submodule(name, protected)
    try:
        trace = trace_inputs(clone, example)
    except Exception as error:  # the model's own code
        raise RecipeError(
            f"before: the model does not run with a front before '{before}' ({_one_line(error)}). Its forward may read "
            "an attribute that only the module itself has, or expect another shape of it; name another module."
        ) from error
    changes = Changes(
        before=before,
        reinitialized=tuple(
            name for name, _ in clone.named_parameters() if replaced and name.startswith(f"{replaced}.")
        ),
        parameters=(_count_parameters(model), _count_parameters(clone)),
        operations=(original.operations, trace.operations),
        front_input=front_input,
        front_output=trace.inputs[f"{before}.layer"][0],
        output=trace.output,
    )
    return Protected(model=clone, changes=changes)


def check_arguments(features: Any, steps: Any, emit: Any, learn: Any, example: Any) -> None:
    """Check the types and the number of values of `protect`'s arguments.

    Raises:
        RecipeError: for a setting.
        DataError: for the example.
    """
    if emit not in get_args(Emit):
        raise RecipeError(f"emit is {emit!r}, expected one of {', '.join(get_args(Emit))}.")
    if learn not in get_args(Learn):
        raise RecipeError(f"learn is {learn!r}, expected one of {', '.join(get_args(Learn))}.")
    for name, values in (("features", features), ("steps", steps)):
        if not isinstance(values, Sequence) or not all(isinstance(value, int) for value in values):
            raise RecipeError(f"{name}: expected whole numbers, one for each layer, e.g. (16, 28), got {values!r}.")
    if len(features) != len(steps) or not features:
        raise RecipeError(f"features and steps need one entry for each layer, got {features} and {steps}.")
    if not isinstance(example, Tensor):
        raise DataError(f"example: expected a tensor (n, c, h, w), got a {type(example).__name__}.")
    if example.ndim != 4 or not example.is_floating_point() or not len(example):
        raise DataError(f"example: expected float images (n, c, h, w), got {tuple(example.shape)} of {example.dtype}.")
    if not example.isfinite().all():
        raise DataError("example: has values that are not finite.")


def _find_front_input(model: nn.Module, before: str, emit: Emit, trace: Trace) -> tuple[int, ...]:
    """Return the shape of a module's input for one image, if there may be a front before it."""
    possible = [
        name
        for name, shapes in trace.inputs.items()
        if len(shapes) == 1
        and len(shapes[0]) == 3
        and (emit == "reconstruction" or _first_conv(model.get_submodule(name), name))
    ]
    if before in possible:
        return trace.inputs[before][0]
    if before not in trace.inputs:
        none = "No module can have a front; forward hooks do not reach modules of scripted and traced models."
        known = nearest(before, possible) if possible else none
        raise RecipeError(f"before: the model runs no module '{before}'. {known}")
    shapes = trace.inputs[before]
    if len(shapes) > 1:
        problem = f"runs {len(shapes)} times"
    elif len(shapes[0]) != 3:
        problem = "has another input than one tensor (n, c, h, w)"
    else:
        problem = (
            "does not begin with a convolution whose weights are its own parameters, so it cannot take codes; "
            "with emit='reconstruction' it can be any module"
        )
    raise RecipeError(f"before: '{before}' {problem}. Possible: {', '.join(sorted(possible)) or 'none'}.")


def _first_conv(module: nn.Module, name: str) -> tuple[str, nn.Conv2d] | None:
    """Return the convolution that a module begins with and its name; None where there is none to replace."""
    while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        child, module = next(iter(module.named_children()))
        name = f"{name}.{child}"
    has_weights = "weight" in dict(module.named_parameters(recurse=False))
    return (name, module) if isinstance(module, nn.Conv2d) and has_weights else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _count_parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())
