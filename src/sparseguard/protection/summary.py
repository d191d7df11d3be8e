"""Changes that protecting a model makes, and the trace they are measured by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sparseguard.core.model_copy import copy_model

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Differences between a protected model and the user's.

    Args:
        before: name of the module behind the front.
        reinitialized: weights with new random values, which fine-tuning must learn again.
        parameters: of the model, before and after.
        operations: floating-point operations an image, before and after: products and convolutions, counted while the
            model ran on the example.
        front_input: shape of the front's input for one image.
        front_output: shape of the front's output for one image.
        output: shape of the model's output for one image, the same before and after; empty where it is no tensor.
    """

    before: str
    reinitialized: tuple[str, ...]
    parameters: tuple[int, int]
    operations: tuple[int, int]
    front_input: Shape
    front_output: Shape
    output: Shape

    def __str__(self) -> str:
        """Describe the changes in four lines."""
        reset = f"new random weights: {', '.join(self.reinitialized)}" if self.reinitialized else "no new weights"
        (old, new), (cost, new_cost) = self.parameters, self.operations
        ratio = f" ({new_cost / cost:.2f} times)" if cost else ""
        return (
            f"sparse front before '{self.before}': input {self.front_input}, output {self.front_output}; {reset}\n"
            f"parameters: {old:,} before, {new:,} after\n"
            f"operations an image: {cost:,} before, {new_cost:,} after{ratio}\n"
            f"output for an image: {self.output or 'no single tensor'}"
        )


@dataclass(kw_only=True)
class Trace:
    """Inputs of a model's modules, by every name a module has, and the model's output.

    Args:
        inputs: a shape without the batch for each call of a module; empty where the input was not one tensor.
        output: shape of the output for one image; empty where it is no tensor.
        operations: floating-point operations an image.
    """

    inputs: dict[str, list[Shape]] = field(default_factory=dict)
    output: Shape = ()
    operations: int = 0


@torch.no_grad()
def trace_inputs(model: nn.Module, example: Tensor) -> Trace:
    """Run a copy of a model in evaluation mode; modules inside scripted ones are not traced."""
    scratch, trace = copy_model(model).eval(), Trace()
    names: dict[nn.Module, list[str]] = {}
    for name, module in scratch.named_modules(remove_duplicate=False):
        if name and not isinstance(module, torch.jit.ScriptModule):
            names.setdefault(module, []).append(name)

    def make_hook(aliases: list[str]) -> Callable[..., None]:
        def record_input(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            single = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
            for name in aliases:
                trace.inputs.setdefault(name, []).append(tuple(args[0].shape[1:]) if single else ())

        return record_input

    for module, aliases in names.items():
        module.register_forward_pre_hook(make_hook(aliases), with_kwargs=True)
    scratch(example[:1])  # sparse layers compute their step size in their first call
    trace.inputs.clear()
    with FlopCounterMode(display=False) as counter:
        output = scratch(example)
    trace.output = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
    trace.operations = counter.get_total_flops() // len(example)
    return trace
