"""Paired comparisons of the attacks of one case, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from sparseguard.metrics import METRICS
from sparseguard.pipeline.recipe.conditions import Conditions
from sparseguard.pipeline.recipe.entries import NamedAttack
from sparseguard.pipeline.scoring.images import ScoredAttack
from sparseguard.record import Choice, Comparison
from sparseguard.stats import paired_difference
from sparseguard.types import Knowledge

SPLITS = ("private", "test")


def compare(
    attacks: Sequence[NamedAttack], scored: Mapping[str, ScoredAttack], chosen: Sequence[Choice]
) -> list[Comparison]:
    """Return every chosen attack minus that of black-box, and every control minus the attack it belongs to.

    A control belongs to the attack of the same component that has all auxiliary data and no control.

    Args:
        attacks: the recipe's attacks.
        scored: their scores, by label.
        chosen: the attacks chosen.
    """
    comparisons: list[Comparison] = []
    black_box = {choice.metric: choice.attack for choice in chosen if _is_base(choice)}
    for choice in chosen:
        if not _is_base(choice) and choice.metric in black_box:
            comparisons += _differences(
                "knowledge", scored[choice.attack], scored[black_box[choice.metric]], choice.metric
            )
    for attack in attacks:
        reference = _reference_of(attack, attacks)
        if attack.label in scored and reference is not None and reference.label in scored:
            for metric in METRICS:
                comparisons += _differences("control", scored[attack.label], scored[reference.label], metric)
    return comparisons


def _is_base(choice: Choice) -> bool:
    return (choice.knowledge, choice.queries) == (Knowledge.BLACK_BOX, 1)


def _reference_of(attack: NamedAttack, attacks: Sequence[NamedAttack]) -> NamedAttack | None:
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
    kind: Literal["knowledge", "control"], first: ScoredAttack, second: ScoredAttack, metric: str
) -> Iterator[Comparison]:
    for split in SPLITS:
        if split not in first.scores or split not in second.scores:
            continue
        shared = set(first.indices[split]) & set(second.indices[split])
        if len(shared) < 2:
            continue
        difference = paired_difference(
            first.at(split, metric, shared).numpy(), second.at(split, metric, shared).numpy()
        )
        yield Comparison(
            kind=kind,
            first=first.name,
            second=second.name,
            metric=metric,
            split=split,
            mean=difference.mean,
            ci95=difference.interval,
            n=difference.n,
        )
