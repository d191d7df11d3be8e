"""Layers of a network between the image and the tap, and the activations before and after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseguard.core.errors import RecipeError, nearest
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import StagedModel

BATCH = 256
SHAPE_ONLY = (nn.Identity, nn.Flatten, nn.Dropout)
"""Modules that change nothing (in evaluation mode) but the shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One module between the image and the tap.

    Args:
        name: the stage's name, with the numbers of the modules within where it has several.
        module: the module.
    """

    name: str
    module: nn.Module


@dataclass(frozen=True, kw_only=True, eq=False)
class Activations:
    """A layer's inputs and outputs for the attacker's and the evaluated images.

    Args:
        layer: the layer.
        auxiliary_in: ``(n, ...)``, on the CPU like the others.
        auxiliary_out: ``(n, ...)``.
        private_in: ``(m, ...)``.
        private_out: ``(m, ...)``.
    """

    layer: Layer
    auxiliary_in: Tensor
    auxiliary_out: Tensor
    private_in: Tensor
    private_out: Tensor


def list_layers(model: StagedModel, tap_stage: str) -> list[Layer]:
    """Return all layers up to the output of ``tap_stage``, in order; modules that only reshape are left out.

    Raises:
        RecipeError: when the model has no such stage.
    """
    if tap_stage not in model.stages:
        raise RecipeError(f"the model has no stage '{tap_stage}'. {nearest(tap_stage, model.stages)}")
    layers = list[Layer]()
    for name, module in model.stages.items():
        layers += _split(name, module)
        if name == tap_stage:
            break
    return layers


def iterate_activations(
    layers: list[Layer], auxiliary: Tensor, private: Tensor, *, device: torch.device, seed: int
) -> Iterator[Activations]:
    """Send images through one layer after the other; hold no more than two layers' values at a time.

    Args:
        layers: from `list_layers`.
        auxiliary: the attacker's images ``(n, c, h, w)`` in [0, 1].
        private: the evaluated images ``(m, c, h, w)`` in [0, 1].
        device: where the model is.
        seed: of noise that layers add.
    """
    for layer in layers:
        auxiliary_out = run_layer(layer, auxiliary, device, derive(purpose="public", wall=layer.name, seed=seed))
        private_out = run_layer(layer, private, device, derive(purpose="private", wall=layer.name, seed=seed))
        yield Activations(
            layer=layer,
            auxiliary_in=auxiliary,
            auxiliary_out=auxiliary_out,
            private_in=private,
            private_out=private_out,
        )
        auxiliary, private = auxiliary_out, private_out


@torch.no_grad()
def run_layer(layer: Layer, values: Tensor, device: torch.device, seed: int) -> Tensor:
    """Return the layer's outputs for ``values``, on the CPU; dense layers flatten their inputs.

    Raises:
        ValueError: for a module in training mode.
    """
    if layer.module.training:
        raise ValueError(f"bounds need a model in evaluation mode; '{layer.name}' is in training mode.")
    if isinstance(layer.module, nn.Linear):
        values = values.flatten(1)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return torch.cat([layer.module(batch.to(device)).cpu() for batch in values.split(BATCH)])


def compose_layers(layers: list[Layer], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function that the layers compute together; noisy ones draw fresh noise at every call."""

    @torch.no_grad()
    def function(values: Tensor) -> Tensor:
        outputs = []
        for batch in values.split(BATCH):
            value = batch.to(device)
            for layer in layers:
                value = layer.module(value.flatten(1) if isinstance(layer.module, nn.Linear) else value)
            outputs.append(value.cpu())
        return torch.cat(outputs)

    return function


def is_lossless(module: nn.Module) -> bool:
    """Return whether a module is known to lose nothing: a batch normalization without zero gains."""
    if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return False
    return not module.affine or bool((module.weight != 0).all())


def _split(name: str, module: nn.Module) -> list[Layer]:
    if isinstance(module, SHAPE_ONLY):
        return []
    if type(module) is not nn.Sequential:
        return [Layer(name=name, module=module)]
    children = [(number, child) for number, child in enumerate(module) if not isinstance(child, SHAPE_ONLY)]
    if len(children) == 1:
        return _split(name, children[0][1])
    return [layer for number, child in children for layer in _split(f"{name}.{number}", child)]
