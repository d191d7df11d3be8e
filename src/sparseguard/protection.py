"""Putting a sparse-coding front before a part of a user's own model, ready to fine-tune."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.flop_counter import FlopCounterMode

from sparseguard.errors import DataError, RecipeError, nearest
from sparseguard.sparse import SparseCode2d, SparseCoding
from sparseguard.sparse.solve import own_precision
from sparseguard.stages import take_channels

Emit = Literal["codes", "reconstruction"]
Learn = Literal["both", "backprop", "local", "none"]
Shape = tuple[int, ...]


@final
class Reconstructed(nn.Module):
    """A sparse layer that hands on what its code says of the image instead of the code: ``(n, c, h, w)`` as it came.

    The code is of the image standardized to mean 0 and variance 1; mean and deviation are put back.

    Args:
        code: the layer; it standardizes its input.
    """

    def __init__(self, code: SparseCode2d) -> None:
        super().__init__()
        self.code = code

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstruction."""
        code = self.code(images)
        with own_precision(images.device):
            plain = images.to(code.dtype)
            variance, mean = torch.var_mean(plain, dim=(1, 2, 3), correction=0, keepdim=True)
            return mean + (variance + 1e-10).sqrt() * self.code.operator(plain).synthesis(code)


@final
class Guarded(nn.Module):
    """A part of a model behind its sparse front.

    Args:
        front: pairs of sparse layer and normalization.
        layer: the part.
    """

    def __init__(self, front: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.front, self.layer = front, layer

    def forward(self, images: Tensor) -> Any:
        """Return what the part makes of what the front hands on, which is in the images' precision."""
        return self.layer(self.front(images).to(images.dtype))


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What protecting a model changed.

    Args:
        before: the part that the front was put before.
        reinitialized: weights drawn anew, which fine-tuning must learn again.
        parameters: of the model, before and after.
        operations: floating-point operations an image, before and after: products and convolutions, as the model ran
            on the example.
        enters: shape of what enters the front.
        leaves: shape of what it hands on.
        output: shape of the model's output for one image, the same before and after.
    """

    before: str
    reinitialized: tuple[str, ...]
    parameters: tuple[int, int]
    operations: tuple[int, int]
    enters: Shape
    leaves: Shape
    output: Shape

    def __str__(self) -> str:
        """Tell it in words."""
        anew = f"drawn anew: {', '.join(self.reinitialized)}" if self.reinitialized else "nothing was drawn anew"
        (old, new), (cost, more) = self.parameters, self.operations
        share = f" ({more / cost:.2f} times)" if cost else ""
        return (
            f"sparse front before '{self.before}': {self.enters} enters, {self.leaves} leaves; {anew}\n"
            f"parameters: {old:,} before, {new:,} after\n"
            f"operations an image: {cost:,} before, {more:,} after{share}\n"
            f"output for an image: {self.output}"
        )


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


@dataclass(kw_only=True)
class _Seen:
    """What reached the parts of a model."""

    inputs: dict[str, list[Shape]] = field(default_factory=dict)
    output: Shape = ()
    operations: int = 0


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
    and scale, so that nothing is made anew and there is no normalization. The model itself is left as it is.

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
        DataError: for an example of another kind, or one that the model does not take.

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
    if len(features) != len(steps) or not features:
        raise RecipeError(f"features and steps need one entry for each layer, got {features} and {steps}.")
    if example.ndim != 4 or not example.is_floating_point() or not len(example):
        raise DataError(f"example: expected float images (n, c, h, w), got {tuple(example.shape)} of {example.dtype}.")
    plain = _watched(model, example)
    part = _part(model, before, emit, plain)
    enters = plain.inputs[before][0]
    new = copy.deepcopy(model)
    layer, anew = new.get_submodule(before), ""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        front = _front(enters[0], features, steps, emit, learn, lambd, kernel_size)
        conv = _first_conv(layer, f"{before}.layer") if emit == "codes" else None
        if conv is not None:
            anew = conv[0]
            take_channels(conv[1], features[-1])
    front.to(device=example.device).train(part.training)
    new.set_submodule(before, Guarded(front, layer))
    seen = _watched(new, example)
    names = [name for name, _ in new.named_parameters()]
    changes = Changes(
        before=before,
        reinitialized=tuple(name for name in names if anew and name.startswith(f"{anew}.")),
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


def _front(
    channels: int,
    features: Sequence[int],
    steps: Sequence[int],
    emit: Emit,
    learn: Learn,
    lambd: float,
    kernel_size: int,
) -> nn.Sequential:
    enters = (channels,) * len(features) if emit == "reconstruction" else (channels, *features)
    front = nn.Sequential()
    for index, (width, atoms, number) in enumerate(zip(enters, features, steps, strict=False)):
        try:
            layer = SparseCode2d(
                width,
                atoms,
                kernel_size,
                lambd=lambd,
                steps=number,
                hebbian=index > 0 and learn in ("both", "local"),
                backprop=index > 0 and learn in ("both", "backprop"),
            )
        except ValueError as error:
            raise RecipeError(f"sparse layer {index + 1}: {error}") from None
        front.extend([Reconstructed(layer)] if emit == "reconstruction" else [layer, nn.BatchNorm2d(atoms)])
    return front


def _part(model: nn.Module, before: str, emit: Emit, seen: _Seen) -> nn.Module:
    possible = [
        name
        for name, shapes in seen.inputs.items()
        if len(shapes) == 1
        and len(shapes[0]) == 3
        and (emit == "reconstruction" or _first_conv(model.get_submodule(name), name))
    ]
    if before in possible:
        return model.get_submodule(before)
    if before not in seen.inputs:
        raise RecipeError(f"before: the model runs no module '{before}'. {nearest(before, possible)}")
    shapes = seen.inputs[before]
    if len(shapes) > 1:
        what = f"is run {len(shapes)} times"
    elif len(shapes[0]) != 3:
        what = "is not given one tensor (n, c, h, w)"
    else:
        what = "does not begin with a convolution that could take codes; with emit='reconstruction' it need not"
    raise RecipeError(f"before: '{before}' {what}. Possible: {', '.join(sorted(possible)) or 'none'}.")


def _first_conv(part: nn.Module, name: str) -> tuple[str, nn.Conv2d] | None:
    """Return the convolution that a part begins with and its name; None where there is none to be made anew."""
    while type(part) is nn.Sequential and len(part):
        (inner, part), name = next(iter(part.named_children())), f"{name}."
        name += inner
    return (name, part) if isinstance(part, nn.Conv2d) and not is_parametrized(part) else None


def _watched(model: nn.Module, example: Tensor) -> _Seen:
    """Run a copy of the model in evaluation mode."""
    scratch, seen = copy.deepcopy(model).eval(), _Seen()

    def watch(name: str) -> Callable[..., None]:
        def see(_module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            alone = len(given) == 1 and not named and isinstance(given[0], Tensor)
            seen.inputs.setdefault(name, []).append(tuple(given[0].shape[1:]) if alone else ())

        return see

    for name, module in scratch.named_modules():
        if name:
            module.register_forward_pre_hook(watch(name), with_kwargs=True)
    try:
        with torch.no_grad():
            scratch(example[:1])  # sparse layers find their step size in their first call
            seen.inputs.clear()
            with FlopCounterMode(display=False) as counter:
                output = scratch(example)
    except Exception as error:  # the model's own code
        told = " ".join(str(error).split())[:200]
        raise DataError(f"example: the model does not take {tuple(example.shape)} ({told}).") from error
    seen.output = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
    seen.operations = counter.get_total_flops() // len(example)
    return seen


def _count(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())
