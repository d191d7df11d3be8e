"""Several defenses at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from sparseguard.core.errors import RecipeError
from sparseguard.core.staged_model import Blueprint, StagedModel
from sparseguard.defenses.base import AuxiliaryNetwork, Batches, Context, Defense, State
from sparseguard.types import BatchContext, EpochContext, Phase

REVISION = 1
"""Of how defenses act together."""

SEPARATOR = "+"


def split_name(name: str, known: Iterable[str]) -> list[str] | None:
    """Return the defenses that a name such as ``sca+laplace-noise`` puts together; None when it cannot be read so.

    Example:
        >>> split_name("sca+gong++", ["sca", "gong", "gong++"])
        ['sca', 'gong++']
        >>> split_name("sca+unknown", ["sca"]) is None
        True
    """
    names = sorted(known, key=len, reverse=True)
    if name in names:
        return [name]
    for first in names:
        if name.startswith(first + SEPARATOR):
            rest = split_name(name[len(first) + 1 :], names)
            if rest is not None:
                return [first, *rest]
    return None


@final
@dataclass(frozen=True)
class Combined(Defense):
    r"""Several defenses at once: stages in their order, penalties added.

    .. math:: L = \mathrm{CE} + \sum_i \mathrm{penalty}_i

    Args:
        parts: the defenses by the names of the table, in the order their stages are placed: the later one acts behind
            the earlier one where both act at the same place.

    Raises:
        RecipeError: when they cannot be combined, with the reason.

    Source: ours.

    Example:
        >>> from sparseguard.defenses import DEFENSES
        >>> both = Combined({name: DEFENSES[name]() for name in ("sca", "gaussian-noise")})
        >>> both.randomizes
        True
    """

    parts: Mapping[str, Defense]

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        together = SEPARATOR.join(self.parts)
        for hook in ("loss", "phases", "build_auxiliary_network", "wrap"):
            own = [name for name, part in self.parts.items() if _overrides(part, hook)]
            if own and (hook == "loss" or len(own) > 1):
                raise RecipeError(f"'{together}' cannot be combined: {' and '.join(own)} {_REASONS[hook]}.")
        for name, part in self.parts.items():
            for other, beside in self.parts.items():
                reason = part.find_conflict(beside) if other != name else None
                if reason:
                    raise RecipeError(f"'{together}' cannot be combined: {name} refuses {other}: {reason}.")

    @property
    def acts_at_tap(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return any(part.acts_at_tap for part in self.parts.values())

    @property
    def randomizes(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return any(part.randomizes for part in self.parts.values())

    @property
    def chooses_epoch(self) -> bool:  # type: ignore[override]
        """Whether all of them do."""
        return all(part.chooses_epoch for part in self.parts.values())

    def find_unaccounted_access(self) -> str | None:
        """Return the first reason there is."""
        return _first(part.find_unaccounted_access() for part in self.parts.values())

    def describe(self) -> dict[str, Any]:
        """Return the settings of each by its name."""
        return {name: part.describe() for name, part in self.parts.items()}

    def revisions(self) -> list[int]:
        """Return the revisions of all, and of how they act together."""
        return [REVISION, *(revision for part in self.parts.values() for revision in part.revisions())]

    def prepare(self, context: Context) -> State:
        """Let each learn; what it learned is kept under its own name."""
        return {
            f"{name}/{key}": value for name, part in self.parts.items() for key, value in part.prepare(context).items()
        }

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Place the stages of each in turn.

        Raises:
            RecipeError: when one replaces a stage that an earlier one placed, which would then defend no more.
        """
        together, placed_by = SEPARATOR.join(self.parts), dict[str, str]()
        for name, part in self.parts.items():
            try:
                changed = part.edit_blueprint(blueprint, _own(state, name))
            except RecipeError as error:
                raise RecipeError(f"'{together}': {name}: {error}") from error
            before, after = ({stage.name: stage for stage in one.stages} for one in (blueprint, changed))
            for stage in before:
                if stage in placed_by and after.get(stage) is not before[stage]:
                    raise RecipeError(
                        f"'{together}' cannot be combined: {name} replaces the stage '{stage}', which is "
                        f"{placed_by[stage]}'s."
                    )
            placed_by |= {stage: name for stage in after if after[stage] is not before.get(stage)}
            blueprint = changed
        return blueprint

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Return the phases of the one that parts the training."""
        return self._one("phases").phases(epochs)

    def build_auxiliary_network(self, model: StagedModel, tap_stage: str, images: Tensor) -> AuxiliaryNetwork | None:
        """Return the companion of the one that has one."""
        return self._one("build_auxiliary_network").build_auxiliary_network(model, tap_stage, images)

    @contextmanager
    def wrap(
        self, model: StagedModel, optimizer: torch.optim.Optimizer, batches: Batches, state: State
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, Batches]]:
        """Train as the one that trains differently."""
        with ExitStack() as stack:
            for name, part in self.parts.items():
                if _overrides(part, "wrap"):
                    yield stack.enter_context(part.wrap(model, optimizer, batches, _own(state, name)))
                    return
            yield model, optimizer, batches

    def on_epoch_start(self, context: EpochContext) -> State:
        """Let each look."""
        found: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            seen = part.on_epoch_start(_with_state(context, _own(context.state, name)))
            found |= {f"{name}/{key}": value for key, value in seen.items()}
        return found

    def transform(
        self, images: Tensor, labels: Tensor, *, state: State, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Change the batch by each in turn."""
        for name, part in self.parts.items():
            images, labels = part.transform(images, labels, state=_own(state, name), epoch=epoch, generator=generator)
        return images, labels

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return the sum of the penalties."""
        penalties = [part.penalty(_with_state(batch, _own(batch.state, name))) for name, part in self.parts.items()]
        there = [penalty for penalty in penalties if penalty is not None]
        return torch.stack(there).sum() if there else None

    def on_step_end(self, model: StagedModel) -> None:
        """Let each act."""
        for part in self.parts.values():
            part.on_step_end(model)

    def release(self, model: StagedModel) -> None:
        """Let each change the model."""
        for part in self.parts.values():
            part.release(model)

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Return the first reason there is."""
        return _first(part.find_inactivity(model, images) for part in self.parts.values())

    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return the figures of all."""
        return {
            key: value
            for name, part in self.parts.items()
            for key, value in part.facts(model, images, _own(state, name)).items()
        }

    def _one(self, hook: str) -> Defense:
        """Return the part that has a hook of its own, or any."""
        parts: Sequence[Defense] = list(self.parts.values())
        return next((part for part in parts if _overrides(part, hook)), parts[0])


_REASONS = {
    "loss": "replaces the loss as a whole",
    "phases": "each part the training in their own way",
    "build_auxiliary_network": "each train a network beside the target",
    "wrap": "each exchange how the target is trained",
}


def _overrides(part: Defense, hook: str) -> bool:
    return getattr(type(part), hook) is not getattr(Defense, hook)


def _own(state: State, name: str) -> State:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


S = TypeVar("S", BatchContext, EpochContext)


def _with_state(value: S, state: State) -> S:
    return replace(value, state=state)
