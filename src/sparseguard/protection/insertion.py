"""Putting the front into a copy of the model, and refusing where it cannot be put."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from sparseguard.core.errors import DataError, RecipeError, nearest
from sparseguard.core.model_copy import copy_of
from sparseguard.core.staged_model import take_channels
from sparseguard.protection.front import Emit, Guarded, Learn, built
from sparseguard.protection.summary import Changes, Seen, watched
from sparseguard.sparse import SparseCoding


@dataclass(frozen=True, kw_only=True, eq=False)
class Protected:
    """A protected model and what changed.

    Args:
        model: a new one; train it as any, and call `apply_updates` after each optimizer step.
        changes: what is different from the user's.
    """

    model: nn.Module
    changes: Changes

    def apply_updates(self) -> None:
        """Let the dictionaries that learn locally learn from the training forwards since the last call."""
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
    """Return a copy of a model with pairs of sparse layer and normalization before one of its parts.

    With ``codes`` the part is given the last layer's codes, batch-normalized, and its first convolution is made anew
    for their number. With ``reconstruction`` each layer hands on what its code says of its input, in the input's shape
    and scale, so that nothing is made anew and there is no normalization. The model itself is left as it is; the copy
    of a compiled one is not compiled.

    Args:
        model: any module whose forward takes images.
        before: the part's name in ``model.named_modules()``, such as ``conv1`` of a ResNet. For ``codes`` a `Conv2d`,
            or a `Sequential` that begins with one.
        example: images ``(n, c, h, w)`` as the model takes them, on its device.
        features: atoms of each sparse layer.
        lambd: sparsity weight of every layer; its input is standardized, so it means the same at any scale.
        kernel_size: side of the atoms; odd.
        steps: solver steps of each layer.
        emit: what the part is given.
        learn: how every dictionary but the first is learned: by gradients (``backprop``), the ``local`` update
            (`apply_updates`), ``both``, or not at all. The first stays random, as in `sca`.
        seed: of the random atoms and the new convolution.

    Raises:
        RecipeError: for a name the model does not have (with the right ones), a part that cannot have such a front, or
            a setting out of range.
        DataError: for an example of another kind, or one that the model does not take, or a model that cannot be
            copied.

    Source: Dibbo et al., ECCV 2024, section 3, for ``codes``.

    Differs: ``reconstruction`` is ours. It keeps each image's mean and contrast.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import sparseguard
        >>> mine = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
        >>> done = sparseguard.protect(mine, before="0", example=torch.rand(2, 3, 8, 8))
        >>> done.model(torch.rand(2, 3, 8, 8)).shape, done.changes.leaves, done.changes.reinitialized
        (torch.Size([2, 5]), (28, 8, 8), ('0.layer.weight', '0.layer.bias'))
    """
    check_given(features, steps, emit, learn, example)
    new = copy_of(model)
    if lazy := [name for name, weight in new.named_parameters() if isinstance(weight, nn.UninitializedParameter)]:
        raise DataError(f"the model's '{lazy[0]}' gets its size in the first call; run the model on the example first.")
    try:
        plain = watched(new, example)
    except Exception as error:  # the model's own code
        raise DataError(f"example: the model does not take {tuple(example.shape)} ({_told(error)}).") from error
    enters = _enters(new, before, emit, plain)
    layer, anew = new.get_submodule(before), ""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        front = built(enters[0], features, steps, emit, learn, lambd, kernel_size)
        conv = _first_conv(layer, f"{before}.layer") if emit == "codes" else None
        if conv is not None:
            anew = conv[0]
            take_channels(conv[1], features[-1])
    front.to(device=example.device).train(layer.training)
    guarded = Guarded(front, layer)
    for name in [name for name, module in new.named_modules(remove_duplicate=False) if module is layer]:
        new.set_submodule(name, guarded)
    try:
        seen = watched(new, example)
    except Exception as error:  # the model's own code
        raise RecipeError(
            f"before: the model does not run with a front before '{before}' ({_told(error)}). Its forward may read "
            "from that part what only the part itself has, or want another shape of it; name another one."
        ) from error
    changes = Changes(
        before=before,
        reinitialized=tuple(name for name, _ in new.named_parameters() if anew and name.startswith(f"{anew}.")),
        parameters=(_count(model), _count(new)),
        operations=(plain.operations, seen.operations),
        enters=enters,
        leaves=seen.inputs[f"{before}.layer"][0],
        output=seen.output,
    )
    return Protected(model=new, changes=changes)


def apply_updates(model: nn.Module) -> None:
    """Let a model's dictionaries that learn locally learn from the training forwards since the last call.

    Call it after each optimizer step; `hebbian_update` says what is done.
    """
    for module in model.modules():
        if isinstance(module, SparseCoding) and module.hebbian:
            module.apply_update()


def check_given(features: Any, steps: Any, emit: Any, learn: Any, example: Any) -> None:
    """Refuse what `protect` was called with where it is of another kind than asked for, or of another number.

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


def _enters(model: nn.Module, before: str, emit: Emit, seen: Seen) -> tuple[int, ...]:
    """Return the shape of what a part is given, if there may be a front before it."""
    possible = [
        name
        for name, shapes in seen.inputs.items()
        if len(shapes) == 1
        and len(shapes[0]) == 3
        and (emit == "reconstruction" or _first_conv(model.get_submodule(name), name))
    ]
    if before in possible:
        return seen.inputs[before][0]
    if before not in seen.inputs:
        none = "None can have a front; modules of scripted and traced models cannot be watched."
        known = nearest(before, possible) if possible else none
        raise RecipeError(f"before: the model runs no module '{before}'. {known}")
    shapes = seen.inputs[before]
    if len(shapes) > 1:
        what = f"is run {len(shapes)} times"
    elif len(shapes[0]) != 3:
        what = "is not given one tensor (n, c, h, w)"
    else:
        what = (
            "does not begin with a convolution that could take codes, with weights of its own that nothing computes; "
            "with emit='reconstruction' it need not"
        )
    raise RecipeError(f"before: '{before}' {what}. Possible: {', '.join(sorted(possible)) or 'none'}.")


def _first_conv(part: nn.Module, name: str) -> tuple[str, nn.Conv2d] | None:
    """Return the convolution that a part begins with and its name; None where there is none to be made anew."""
    while isinstance(part, nn.Sequential) and type(part).forward is nn.Sequential.forward and len(part):
        (inner, part), name = next(iter(part.named_children())), f"{name}."
        name += inner
    has_weights = "weight" in dict(part.named_parameters(recurse=False))
    return (name, part) if isinstance(part, nn.Conv2d) and has_weights else None


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())
