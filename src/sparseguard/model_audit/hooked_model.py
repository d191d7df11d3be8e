"""Any model as a target: its taps read by forward hooks, which are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from sparseguard.core.errors import RecipeError, SparseguardError, TrainingError, nearest
from sparseguard.core.model_copy import copy_of
from sparseguard.core.staged_model import NOTHING_KNOWN, Shape, StagedModel
from sparseguard.model_audit.preprocessing import own_model

LOGITS = "logits"


class _ReachedError(BaseException):
    """Carries a tap's output out of the model, whose later layers are not run; no model's own handlers stop it."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


@final
class UpTo(nn.Module):
    """The part of a model from the image to the output of one of its modules.

    Args:
        model: the model; not copied.
        tap: name of the module, as in ``model.named_modules()``.
        shape: of what the module puts out for one image; None where it is not known yet.
    """

    def __init__(self, model: nn.Module, tap: str, shape: Shape | None = None) -> None:
        super().__init__()
        self.model, self.tap, self.shape = model, tap, shape

    def forward(self, images: Tensor) -> Tensor:
        """Return the module's output, the first time it is run; whole numbers and halves as float32.

        Raises:
            TrainingError: when the module is not run, puts out something else than a tensor of a row an image, of
                the expected shape, or when the model's own code fails.
        """
        with _stopping_at(module_at(self.model, self.tap)):
            try:
                _run(self.model, images)
            except _ReachedError as reached:
                return self._checked(reached.output, len(images))
        raise TrainingError(f"the tap '{self.tap}' is not run by the model's forward.")

    def _checked(self, output: Any, count: int) -> Tensor:
        if not isinstance(output, Tensor):
            raise TrainingError(
                f"the tap '{self.tap}' puts out a {type(output).__name__}, expected a tensor. "
                "Name a module inside it, or behind it."
            )
        if output.is_complex():
            raise TrainingError(f"the tap '{self.tap}' puts out complex numbers, expected real ones.")
        given = tuple(output.shape)
        if not given or given[0] != count:
            raise TrainingError(f"the tap '{self.tap}' puts out {given} for {count} images, expected a row an image.")
        if self.shape is not None and given[1:] != self.shape:
            raise TrainingError(
                f"the tap '{self.tap}' puts out {given[1:]} for an image, and {self.shape} for others; "
                "attacks need one shape."
            )
        return _as_wide(output)


def module_at(model: nn.Module, tap: str) -> nn.Module:
    """Return the module of a name, which is one of the user's own model and not of a `Preprocessed` around it.

    Raises:
        RecipeError: when it is part of a scripted or traced model, which lets nobody look inside.
    """
    found: nn.Module = dict(own_model(model).named_modules(remove_duplicate=False))[tap]
    if isinstance(found, torch.jit.ScriptModule):
        raise RecipeError(
            f"the tap '{tap}' is inside a scripted or traced model, whose modules cannot be watched. "
            f"Hand over the model as it was before, or audit '{LOGITS}'."
        )
    return found


def _run(model: nn.Module, images: Tensor) -> Any:
    try:
        return model(images)
    except (SparseguardError, ArithmeticError):
        raise
    except Exception as error:  # the model's own code
        told = " ".join(str(error).split())[:300]
        raise TrainingError(
            f"the model failed on images {tuple(images.shape)} with {type(error).__name__}: {told}"
        ) from error


@contextmanager
def _stopping_at(module: nn.Module) -> Iterator[None]:
    def stop(_module: nn.Module, _inputs: Any, output: Any) -> None:
        raise _ReachedError(output)

    handle = module.register_forward_hook(stop)
    try:
        yield
    finally:
        handle.remove()


@final
class HookedModel(StagedModel):
    """A model seen at one tap: stages ``TAP`` and ``logits``, which both start from the image.

    Args:
        model: from images in [0, 1] to logits; put into evaluation mode and frozen, so hand over a copy.
        tap: name of the module that leaks, or ``logits``.
        shape: of what leaks of one image; None where it is not known.
    """

    def __init__(self, model: nn.Module, tap: str, shape: Shape | None = None) -> None:
        leaks = {} if tap == LOGITS else {f"tap {tap.replace('.', '/')}": UpTo(model, tap, shape)}
        super().__init__({**leaks, LOGITS: _Whole(model)})

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.stages[LOGITS](images)
        return logits

    def outputs(self, images: Tensor, known: Mapping[str, Tensor] = NOTHING_KNOWN) -> dict[str, Tensor]:
        """Return what leaks and the logits, in float32."""
        return {name: known[name] if name in known else module(images).float() for name, module in self.stages.items()}

    def forward_to(self, images: Tensor, stage: str) -> Tensor:
        """Return what leaks, or the logits, in float32."""
        if stage not in self.stages:
            raise RecipeError(f"the model has no stage '{stage}'. {nearest(stage, self.stages)}")
        found: Tensor = self.stages[stage](images)
        return found.float()

    def untrained_front(self) -> list[str]:
        """Return nothing: what of a user's model no training touched is not known."""
        return []


@final
class _Whole(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = _run(self.model, images)
        return _as_wide(logits)


def _as_wide(values: Tensor) -> Tensor:
    """Return whole numbers and halves as float32, in which attacks compute."""
    return values if values.dtype == torch.float64 else values.float()


def copied(model: nn.Module) -> nn.Module:
    """Return a frozen copy in evaluation mode; the model itself is left as it is.

    Raises:
        DataError: when it cannot be copied.
    """
    frozen = copy_of(model).eval()
    for weight in frozen.parameters():
        weight.requires_grad_(False)
    return frozen


def check_taps(model: nn.Module, taps: Sequence[str], images: Tensor) -> dict[str, Shape]:
    """Return the shape of what leaks at each tap, for one image.

    Raises:
        RecipeError: for no tap at all, or a name the model does not have, with those it has.
        TrainingError: for a module that is not run, or puts out something else than a tensor of a row an image.
    """
    if isinstance(taps, str) or not taps:
        raise RecipeError(f"taps: expected a list of names, got {taps!r}, e.g. ['{LOGITS}'].")
    names = [name for name, _ in own_model(model).named_modules(remove_duplicate=False) if name]
    shapes = {}
    for tap in taps:
        if tap != LOGITS and tap not in names:
            raise RecipeError(f"the model has no module '{tap}'. {nearest(tap, [*names, LOGITS])}")
        with torch.no_grad():
            output = _run(model, images) if tap == LOGITS else UpTo(model, tap)(images)
        shapes[tap] = tuple(output.shape[1:])
    return shapes


@torch.no_grad()
def times_run(model: nn.Module, tap: str, images: Tensor) -> int:
    """Return how often a model runs one of its modules for each batch; `UpTo` sees the first time only."""
    seen: list[None] = []
    handle = module_at(model, tap).register_forward_hook(lambda *_: seen.append(None))
    try:
        _run(model, images)
    finally:
        handle.remove()
    return len(seen)
