"""What protecting a model changes, and the watching it is counted by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sparseguard.core.model_copy import copy_of

Shape = tuple[int, ...]


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
        output: shape of the model's output for one image, the same before and after; empty where that is no tensor.
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
            f"output for an image: {self.output or 'no single tensor'}"
        )


@dataclass(kw_only=True)
class Seen:
    """What reached the parts of a model, by every name a part has, and what the model put out.

    Args:
        inputs: a shape without the batch for each time the part was run; empty where it was not given one tensor.
        output: shape of the output for one image; empty where it is no tensor.
        operations: floating-point operations an image.
    """

    inputs: dict[str, list[Shape]] = field(default_factory=dict)
    output: Shape = ()
    operations: int = 0


@torch.no_grad()
def watched(model: nn.Module, example: Tensor) -> Seen:
    """Run a copy of a model in evaluation mode; the parts of scripted modules are not seen."""
    scratch, seen = copy_of(model).eval(), Seen()
    names: dict[nn.Module, list[str]] = {}
    for name, module in scratch.named_modules(remove_duplicate=False):
        if name and not isinstance(module, torch.jit.ScriptModule):
            names.setdefault(module, []).append(name)

    def watch(called: list[str]) -> Callable[..., None]:
        def see(_module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            alone = len(given) == 1 and not named and isinstance(given[0], Tensor)
            for name in called:
                seen.inputs.setdefault(name, []).append(tuple(given[0].shape[1:]) if alone else ())

        return see

    for module, called in names.items():
        module.register_forward_pre_hook(watch(called), with_kwargs=True)
    scratch(example[:1])  # sparse layers find their step size in their first call
    seen.inputs.clear()
    with FlopCounterMode(display=False) as counter:
        output = scratch(example)
    seen.output = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
    seen.operations = counter.get_total_flops() // len(example)
    return seen
