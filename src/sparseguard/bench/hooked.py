"""Any model as a target: its taps read by forward hooks, which are gone afterwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from sparseguard.errors import DataError, RecipeError, TrainingError, nearest
from sparseguard.stages import NOTHING_KNOWN, StagedModel

LOGITS = "logits"


class _ReachedError(Exception):
    """Carries a tap's output out of the model, whose later layers are not run."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


@final
class UpTo(nn.Module):
    """The part of a model from the image to the output of one of its modules.

    Args:
        model: the model; not copied.
        tap: name of the module, as in ``model.named_modules()``.
    """

    def __init__(self, model: nn.Module, tap: str) -> None:
        super().__init__()
        self.model, self.tap = model, tap

    def forward(self, images: Tensor) -> Tensor:
        """Return the module's output, the first time it is run.

        Raises:
            TrainingError: when the module is not run, or puts out something else than a tensor.
        """
        with _stopping_at(self.model.get_submodule(self.tap)):
            try:
                self.model(images)
            except _ReachedError as reached:
                if not isinstance(reached.output, Tensor):
                    raise TrainingError(
                        f"the tap '{self.tap}' puts out a {type(reached.output).__name__}, expected a tensor."
                    ) from None
                return reached.output
        raise TrainingError(f"the tap '{self.tap}' is not run by the model's forward.")


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
class Preprocessed(nn.Module):
    """A model behind its own normalization.

    Args:
        model: from normalized images to logits.
        mean: subtracted, one value a channel.
        std: divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images in [0, 1]."""
        logits: Tensor = self.model((images - self.mean) / self.std)
        return logits


@final
class HookedModel(StagedModel):
    """A model seen at one tap: stages ``TAP`` and ``logits``, which both start from the image.

    Args:
        model: from images in [0, 1] to logits; put into evaluation mode and frozen, so hand over a copy.
        tap: name of the module that leaks, or ``logits``.
    """

    def __init__(self, model: nn.Module, tap: str) -> None:
        whole = _Whole(model)
        super().__init__({LOGITS: whole} if tap == LOGITS else {tap.replace(".", "/"): UpTo(model, tap), LOGITS: whole})

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.stages[LOGITS](images)
        return logits

    def outputs(self, images: Tensor, known: Mapping[str, Tensor] = NOTHING_KNOWN) -> dict[str, Tensor]:
        """Return what leaks and the logits."""
        return {name: known[name] if name in known else module(images) for name, module in self.stages.items()}

    def until(self, images: Tensor, stage: str) -> Tensor:
        """Return what leaks, or the logits."""
        if stage not in self.stages:
            raise RecipeError(f"the model has no stage '{stage}'. {nearest(stage, self.stages)}")
        found: Tensor = self.stages[stage](images)
        return found

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
        logits: Tensor = self.model(images)
        return logits


def copied(model: nn.Module) -> nn.Module:
    """Return a frozen copy in evaluation mode; the model itself is left as it is.

    Raises:
        DataError: when it cannot be copied.
    """
    try:
        return copy.deepcopy(model).eval().requires_grad_(False)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"the model cannot be copied ({error}), and the audit leaves the original alone.") from None


def check_taps(model: nn.Module, taps: Sequence[str], images: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the shape of what leaks at each tap, for one image.

    Raises:
        RecipeError: for a name the model does not have, with those it has.
        TrainingError: for a module that is not run, or puts out something else than a tensor of a row an image.
    """
    names = [name for name, _ in model.named_modules() if name]
    shapes = {}
    for tap in taps:
        if tap != LOGITS and tap not in names:
            raise RecipeError(f"the model has no module '{tap}'. {nearest(tap, [*names, LOGITS])}")
        with torch.no_grad():
            output = model(images) if tap == LOGITS else UpTo(model, tap)(images)
        if len(output) != len(images):
            raise TrainingError(f"the tap '{tap}' puts out {tuple(output.shape)} for {len(images)} images.")
        shapes[tap] = tuple(output.shape[1:])
    return shapes
