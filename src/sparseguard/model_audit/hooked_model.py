"""Hooked models: any model as a target, whose taps are read by temporary forward hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from sparseguard.core.errors import RecipeError, SparseguardError, TrainingError, nearest
from sparseguard.core.model_copy import copy_model
from sparseguard.core.staged_model import NOTHING_PRECOMPUTED, Shape, StagedModel
from sparseguard.model_audit.preprocessing import unwrap_model

LOGITS = "logits"


class _TapReached(BaseException):
    """Carries a tap's output out of the model; its later layers do not run."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


@final
class TapOutput(nn.Module):
    """A model truncated behind one of its modules: from the image to that module's output.

    Args:
        model: the model; not copied.
        tap: name of the module, as in ``model.named_modules()``.
        shape: of the module's output for one image; None where it is not known yet.
    """

    def __init__(self, model: nn.Module, tap: str, shape: Shape | None = None) -> None:
        super().__init__()
        self.model, self.tap, self.shape = model, tap, shape

    def forward(self, images: Tensor) -> Tensor:
        """Return the output of the module's first call; integers and half precision as float32.

        Raises:
            TrainingError: when the module does not run, its output is no tensor with one row an image of the expected
                shape, or the model's own code fails.
        """
        with _stop_after(find_module(self.model, self.tap)):
            try:
                _run(self.model, images)
            except _TapReached as reached:
                return self._check(reached.output, len(images))
        raise TrainingError(f"the model's forward does not run the tap '{self.tap}'.")

    def _check(self, output: Any, count: int) -> Tensor:
        if not isinstance(output, Tensor):
            raise TrainingError(
                f"the output of the tap '{self.tap}' is a {type(output).__name__}, expected a tensor. "
                "Name a module inside it, or behind it."
            )
        if output.is_complex():
            raise TrainingError(f"the output of the tap '{self.tap}' is complex, expected real numbers.")
        shape = tuple(output.shape)
        if not shape or shape[0] != count:
            raise TrainingError(
                f"the output of the tap '{self.tap}' has the shape {shape} for {count} images, "
                "expected one row an image."
            )
        if self.shape is not None and shape[1:] != self.shape:
            raise TrainingError(
                f"the output of the tap '{self.tap}' has the shape {shape[1:]} for one image and {self.shape} for "
                "others; attacks need one shape."
            )
        return _to_float32(output)


def find_module(model: nn.Module, tap: str) -> nn.Module:
    """Return the module of the user's own model by its name there; a `Preprocessed` around the model does not count.

    Raises:
        RecipeError: when it is inside a scripted or traced model, where forward hooks do not work.
    """
    module: nn.Module = dict(unwrap_model(model).named_modules(remove_duplicate=False))[tap]
    if isinstance(module, torch.jit.ScriptModule):
        raise RecipeError(
            f"the tap '{tap}' is inside a scripted or traced model, where forward hooks do not work. "
            f"Audit the model before scripting, or audit '{LOGITS}'."
        )
    return module


def _run(model: nn.Module, images: Tensor) -> Any:
    try:
        return model(images)
    except (SparseguardError, ArithmeticError):
        raise
    except Exception as error:  # the model's own code
        message = " ".join(str(error).split())[:300]
        raise TrainingError(
            f"the model failed on images {tuple(images.shape)} with {type(error).__name__}: {message}"
        ) from error


@contextmanager
def _stop_after(module: nn.Module) -> Iterator[None]:
    def stop(_module: nn.Module, _inputs: Any, output: Any) -> None:
        raise _TapReached(output)

    handle = module.register_forward_hook(stop)
    try:
        yield
    finally:
        handle.remove()


@final
class HookedModel(StagedModel):
    """A model with one tap: its stages ``TAP`` and ``logits`` both start from the image.

    Args:
        model: from images in [0, 1] to logits; a frozen copy in evaluation mode, as `copy_frozen` makes it.
        tap: name of the module whose output the attacker sees, or ``logits``.
        shape: of that output for one image; None where it is not known.
    """

    def __init__(self, model: nn.Module, tap: str, shape: Shape | None = None) -> None:
        tapped = {} if tap == LOGITS else {f"tap {tap.replace('.', '/')}": TapOutput(model, tap, shape)}
        super().__init__({**tapped, LOGITS: _Logits(model)})

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.stages[LOGITS](images)
        return logits

    def outputs(self, images: Tensor, known: Mapping[str, Tensor] = NOTHING_PRECOMPUTED) -> dict[str, Tensor]:
        """Return the tap's features and the logits, in float32."""
        return {name: known[name] if name in known else module(images).float() for name, module in self.stages.items()}

    def forward_to(self, images: Tensor, stage: str) -> Tensor:
        """Return the tap's features, or the logits, in float32."""
        if stage not in self.stages:
            raise RecipeError(f"the model has no stage '{stage}'. {nearest(stage, self.stages)}")
        output: Tensor = self.stages[stage](images)
        return output.float()

    def list_untrained_stages(self) -> list[str]:
        """Return no stage: which weights of a user's model are untrained is unknown."""
        return []


@final
class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = _run(self.model, images)
        return _to_float32(logits)


def _to_float32(values: Tensor) -> Tensor:
    """Convert all but float64 to float32, in which attacks compute."""
    return values if values.dtype == torch.float64 else values.float()


def copy_frozen(model: nn.Module) -> nn.Module:
    """Return a frozen copy in evaluation mode; the model itself stays unchanged.

    Raises:
        DataError: when it cannot be copied.
    """
    frozen = copy_model(model).eval()
    for weight in frozen.parameters():
        weight.requires_grad_(False)
    return frozen


def check_taps(model: nn.Module, taps: Sequence[str], images: Tensor) -> dict[str, Shape]:
    """Return the shape of each tap's output for one image.

    Raises:
        RecipeError: for an empty list, or a name the model does not have; the message lists its names.
        TrainingError: for a module that does not run, or whose output is no tensor with one row an image.
    """
    if isinstance(taps, str) or not taps:
        raise RecipeError(f"taps: expected a list of names, got {taps!r}, e.g. ['{LOGITS}'].")
    names = [name for name, _ in unwrap_model(model).named_modules(remove_duplicate=False) if name]
    shapes = {}
    for tap in taps:
        if tap != LOGITS and tap not in names:
            raise RecipeError(f"the model has no module '{tap}'. {nearest(tap, [*names, LOGITS])}")
        with torch.no_grad():
            output = _run(model, images) if tap == LOGITS else TapOutput(model, tap)(images)
        shapes[tap] = tuple(output.shape[1:])
    return shapes


@torch.no_grad()
def count_calls(model: nn.Module, tap: str, images: Tensor) -> int:
    """Return how often a model calls one of its modules for each batch; `TapOutput` returns the first output."""
    calls: list[None] = []
    handle = find_module(model, tap).register_forward_hook(lambda *_: calls.append(None))
    try:
        _run(model, images)
    finally:
        handle.remove()
    return len(calls)
