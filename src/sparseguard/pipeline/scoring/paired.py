"""Attackers of one case side by side, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from sparseguard.metrics import METRICS
from sparseguard.pipeline.recipe.conditions import Conditions
from sparseguard.pipeline.recipe.entries import NamedAttack
from sparseguard.pipeline.scoring.images import Contender
from sparseguard.record import Choice, Comparison
from sparseguard.stats import paired_difference
from sparseguard.types import Knowledge

PARTS = ("private", "test")


def compare(
    attacks: Sequence[NamedAttack], scored: Mapping[str, Contender], chosen: Sequence[Choice]
) -> list[Comparison]:
    """Return every chosen attack minus that of black-box, and every control minus the attack it belongs to.

    A control belongs to the attack of the same name and settings that has all images and no control.

    Args:
        attacks: the recipe's attacks.
        scored: those that were run, by label.
        chosen: the attacks chosen.
    """
    comparisons: list[Comparison] = []
    black_box = {one.metric: one.attack for one in chosen if _is_base(one)}
    for one in chosen:
        if not _is_base(one) and one.metric in black_box:
            comparisons += _differences("knowledge", scored[one.attack], scored[black_box[one.metric]], one.metric)
    for attack in attacks:
        own = _belongs_to(attack, attacks)
        if attack.label in scored and own is not None and own.label in scored:
            for metric in METRICS:
                comparisons += _differences("control", scored[attack.label], scored[own.label], metric)
    return comparisons


def _is_base(choice: Choice) -> bool:
    return (choice.knowledge, choice.queries) == (Knowledge.BLACK_BOX, 1)


def _belongs_to(attack: NamedAttack, attacks: Sequence[NamedAttack]) -> NamedAttack | None:
    if attack.eligible or attack.component.floor:
        return None
    plain = Conditions(queries=attack.conditions.queries)
    return next(
        (
            other
            for other in attacks
            if other.component == attack.component and replace(other.conditions, max_images=None) == plain
        ),
        None,
    )


def _differences(
    kind: Literal["knowledge", "control"], first: Contender, second: Contender, metric: str
) -> Iterator[Comparison]:
    for part in PARTS:
        if part not in first.scores or part not in second.scores:
            continue
        shared = set(first.indices[part]) & set(second.indices[part])
        if len(shared) < 2:
            continue
        found = paired_difference(first.at(part, metric, shared).numpy(), second.at(part, metric, shared).numpy())
        yield Comparison(
            kind=kind,
            first=first.name,
            second=second.name,
            metric=metric,
            split=part,
            mean=found.mean,
            ci95=found.interval,
            n=found.n,
        )
