"""The walls of a network: every module an image passes on its way to the tap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparseguard.core.errors import RecipeError, nearest
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import StagedModel

BATCH = 256
SILENT = (nn.Identity, nn.Flatten, nn.Dropout)
"""Modules that change nothing (in evaluation mode) but the shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Wall:
    """One module an image passes.

    Args:
        name: the stage's name, with the numbers of the modules within where it has several.
        module: what acts there.
    """

    name: str
    module: nn.Module


@dataclass(frozen=True, kw_only=True, eq=False)
class Passed:
    """A wall, and what went in and came out for the attacker's and the evaluated images.

    Args:
        wall: the wall.
        public_in: ``(n, ...)``, on the CPU like the others.
        public_out: ``(n, ...)``.
        private_in: ``(m, ...)``.
        private_out: ``(m, ...)``.
    """

    wall: Wall
    public_in: Tensor
    public_out: Tensor
    private_in: Tensor
    private_out: Tensor


def list_layers(model: StagedModel, tap_stage: str) -> list[Wall]:
    """Return all walls up to the output of ``tap_stage``, in order; modules that only reshape are left out.

    Raises:
        RecipeError: when the model has no such stage.
    """
    if tap_stage not in model.stages:
        raise RecipeError(f"the model has no stage '{tap_stage}'. {nearest(tap_stage, model.stages)}")
    found = list[Wall]()
    for name, module in model.stages.items():
        found += _parts(name, module)
        if name == tap_stage:
            break
    return found


def passed(
    walls: list[Wall], auxiliary: Tensor, private: Tensor, *, device: torch.device, seed: int
) -> Iterator[Passed]:
    """Send images through one wall after the other, keeping no more than two walls' values at a time.

    Args:
        walls: from `list_layers`.
        public: the attacker's images ``(n, c, h, w)`` in [0, 1].
        private: the evaluated images ``(m, c, h, w)`` in [0, 1].
        device: where the model is.
        seed: of noise that walls add.
    """
    for wall in walls:
        public_out = run_wall(wall, auxiliary, device, derive(purpose="public", wall=wall.name, seed=seed))
        private_out = run_wall(wall, private, device, derive(purpose="private", wall=wall.name, seed=seed))
        yield Passed(wall=wall, public_in=auxiliary, public_out=public_out, private_in=private, private_out=private_out)
        auxiliary, private = public_out, private_out


@torch.no_grad()
def run_wall(wall: Wall, values: Tensor, device: torch.device, seed: int) -> Tensor:
    """Return what the wall makes of ``values``, on the CPU.

    Dense walls take flat values, which is why flattening is no wall of its own.

    Raises:
        ValueError: for a module in training mode.
    """
    if wall.module.training:
        raise ValueError(f"bounds need a model in evaluation mode; '{wall.name}' is in training mode.")
    if isinstance(wall.module, nn.Linear):
        values = values.flatten(1)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return torch.cat([wall.module(part.to(device)).cpu() for part in values.split(BATCH)])


def runs(walls: list[Wall], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function that walls are together; walls that add noise draw fresh noise at every call."""

    @torch.no_grad()
    def function(values: Tensor) -> Tensor:
        done = []
        for part in values.split(BATCH):
            value = part.to(device)
            for wall in walls:
                value = wall.module(value.flatten(1) if isinstance(wall.module, nn.Linear) else value)
            done.append(value.cpu())
        return torch.cat(done)

    return function


def invertible(module: nn.Module) -> bool:
    """Return whether a module is known to lose nothing: a batch normalization without zero gains."""
    if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return False
    return not module.affine or bool((module.weight != 0).all())


def _parts(name: str, module: nn.Module) -> list[Wall]:
    if isinstance(module, SILENT):
        return []
    if type(module) is not nn.Sequential:
        return [Wall(name=name, module=module)]
    children = [(number, child) for number, child in enumerate(module) if not isinstance(child, SILENT)]
    if len(children) == 1:
        return _parts(name, children[0][1])
    return [wall for number, child in children for wall in _parts(f"{name}.{number}", child)]
