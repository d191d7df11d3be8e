"""Combination of several defenses."""

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
"""Revision of the rules of combination."""

SEPARATOR = "+"


def split_name(name: str, table: Iterable[str]) -> list[str] | None:
    """Return the names of the defenses that ``sca+laplace-noise`` or the like combines; None for other names.

    Example:
        >>> split_name("sca+gong++", ["sca", "gong", "gong++"])
        ['sca', 'gong++']
        >>> split_name("sca+unknown", ["sca"]) is None
        True
    """
    names = sorted(table, key=len, reverse=True)
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
    r"""Several defenses combined: stages in their order, penalties added.

    .. math:: L = \mathrm{CE} + \sum_i \mathrm{penalty}_i

    Args:
        defenses: the defenses by name, in the order of their stages: the later one acts behind the earlier one where
            both act at the same stage.

    Raises:
        RecipeError: when they cannot be combined; the message gives the reason.

    Source: ours.

    Example:
        >>> from sparseguard.defenses import DEFENSES
        >>> both = Combined({name: DEFENSES[name]() for name in ("sca", "gaussian-noise")})
        >>> both.randomizes
        True
    """

    defenses: Mapping[str, Defense]

    def __post_init__(self) -> None:
        """Refuse defenses that cannot be combined."""
        full_name = SEPARATOR.join(self.defenses)
        for hook in ("loss", "phases", "build_auxiliary_network", "wrap"):
            own = [name for name, defense in self.defenses.items() if _overrides(defense, hook)]
            if own and (hook == "loss" or len(own) > 1):
                raise RecipeError(f"'{full_name}' cannot be combined: {' and '.join(own)} {_REASONS[hook]}.")
        for name, defense in self.defenses.items():
            for other, partner in self.defenses.items():
                reason = defense.find_conflict(partner) if other != name else None
                if reason:
                    raise RecipeError(f"'{full_name}' cannot be combined: {name} refuses {other}: {reason}.")

    @property
    def acts_at_tap(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return any(defense.acts_at_tap for defense in self.defenses.values())

    @property
    def randomizes(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return any(defense.randomizes for defense in self.defenses.values())

    @property
    def chooses_epoch(self) -> bool:  # type: ignore[override]
        """Whether all of them do."""
        return all(defense.chooses_epoch for defense in self.defenses.values())

    def find_unaccounted_access(self) -> str | None:
        """Return the first reason."""
        return _find_first(defense.find_unaccounted_access() for defense in self.defenses.values())

    def describe(self) -> dict[str, Any]:
        """Return the settings of each by its name."""
        return {name: defense.describe() for name, defense in self.defenses.items()}

    def revisions(self) -> list[int]:
        """Return the revisions of all, and of the rules of combination."""
        return [REVISION, *(revision for defense in self.defenses.values() for revision in defense.revisions())]

    def prepare(self, context: Context) -> State:
        """Prepare each; its tensors are stored under its name."""
        return {
            f"{name}/{key}": value
            for name, defense in self.defenses.items()
            for key, value in defense.prepare(context).items()
        }

    def edit_blueprint(self, blueprint: Blueprint, state: State) -> Blueprint:
        """Edit the blueprint by each in turn.

        Raises:
            RecipeError: when one replaces a stage of an earlier one, which would then be inactive.
        """
        full_name, owners = SEPARATOR.join(self.defenses), dict[str, str]()
        for name, defense in self.defenses.items():
            try:
                changed = defense.edit_blueprint(blueprint, _select_state(state, name))
            except RecipeError as error:
                raise RecipeError(f"'{full_name}': {name}: {error}") from error
            before, after = ({stage.name: stage for stage in model.stages} for model in (blueprint, changed))
            for stage in before:
                if stage in owners and after.get(stage) is not before[stage]:
                    raise RecipeError(
                        f"'{full_name}' cannot be combined: {name} replaces the stage '{stage}', which is "
                        f"{owners[stage]}'s."
                    )
            owners |= {stage: name for stage in after if after[stage] is not before.get(stage)}
            blueprint = changed
        return blueprint

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Return the phases of the one that splits the training."""
        return self._find_part("phases").phases(epochs)

    def build_auxiliary_network(self, model: StagedModel, tap_stage: str, images: Tensor) -> AuxiliaryNetwork | None:
        """Return the auxiliary network of the one that has one."""
        return self._find_part("build_auxiliary_network").build_auxiliary_network(model, tap_stage, images)

    @contextmanager
    def wrap(
        self, model: StagedModel, optimizer: torch.optim.Optimizer, batches: Batches, state: State
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer, Batches]]:
        """Wrap the training as the one that does."""
        with ExitStack() as stack:
            for name, defense in self.defenses.items():
                if _overrides(defense, "wrap"):
                    yield stack.enter_context(defense.wrap(model, optimizer, batches, _select_state(state, name)))
                    return
            yield model, optimizer, batches

    def on_epoch_start(self, context: EpochContext) -> State:
        """Call each; its tensors join the state under its name."""
        tensors: dict[str, Tensor] = {}
        for name, defense in self.defenses.items():
            learned = defense.on_epoch_start(_replace_state(context, _select_state(context.state, name)))
            tensors |= {f"{name}/{key}": value for key, value in learned.items()}
        return tensors

    def transform(
        self, images: Tensor, labels: Tensor, *, state: State, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Change the batch by each in turn."""
        for name, defense in self.defenses.items():
            images, labels = defense.transform(
                images, labels, state=_select_state(state, name), epoch=epoch, generator=generator
            )
        return images, labels

    def penalty(self, batch: BatchContext) -> Tensor | None:
        """Return the sum of the penalties."""
        penalties = [
            defense.penalty(_replace_state(batch, _select_state(batch.state, name)))
            for name, defense in self.defenses.items()
        ]
        terms = [penalty for penalty in penalties if penalty is not None]
        return torch.stack(terms).sum() if terms else None

    def on_step_end(self, model: StagedModel) -> None:
        """Call each."""
        for defense in self.defenses.values():
            defense.on_step_end(model)

    def release(self, model: StagedModel) -> None:
        """Call each in turn."""
        for defense in self.defenses.values():
            defense.release(model)

    def find_inactivity(self, model: StagedModel, images: Tensor) -> str | None:
        """Return the first reason."""
        return _find_first(defense.find_inactivity(model, images) for defense in self.defenses.values())

    def facts(self, model: StagedModel, images: Tensor, state: State) -> Mapping[str, float]:
        """Return the figures of all."""
        return {
            key: value
            for name, defense in self.defenses.items()
            for key, value in defense.facts(model, images, _select_state(state, name)).items()
        }

    def _find_part(self, hook: str) -> Defense:
        """Return the defense that overrides a hook, or any."""
        defenses: Sequence[Defense] = list(self.defenses.values())
        return next((defense for defense in defenses if _overrides(defense, hook)), defenses[0])


_REASONS = {
    "loss": "replaces the loss as a whole",
    "phases": "each split the training into phases of their own",
    "build_auxiliary_network": "each train an auxiliary network",
    "wrap": "each replace how the target is trained",
}


def _overrides(defense: Defense, hook: str) -> bool:
    return getattr(type(defense), hook) is not getattr(Defense, hook)


def _select_state(state: State, name: str) -> State:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _find_first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


S = TypeVar("S", BatchContext, EpochContext)


def _replace_state(value: S, state: State) -> S:
    return replace(value, state=state)
