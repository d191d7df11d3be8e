"""Attackers of one case side by side, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from sparseguard.metrics import METRICS
from sparseguard.pipeline.recipe.conditions import Setting
from sparseguard.pipeline.recipe.entries import NamedAttack
from sparseguard.pipeline.scoring.images import Contender
from sparseguard.record import Comparison
from sparseguard.stats.bootstrap import paired_difference
from sparseguard.types import Knowledge

PARTS = ("private", "test")


def compare(
    attacks: Sequence[NamedAttack], scored: Mapping[str, Contender], chosen: Mapping[str, Mapping[str, str]]
) -> list[Comparison]:
    """Return every level's chosen attacker minus that of outputs, and every control minus the attack it belongs to.

    A control belongs to the attack of the same name and settings that has all images and no control.

    Args:
        attacks: the recipe's attacks.
        scored: those that were run, by label.
        chosen: level to metric to the label chosen.
    """
    made: list[Comparison] = []
    base = chosen.get(Knowledge.BLACK_BOX, {})
    for level, by_metric in chosen.items():
        if level != Knowledge.BLACK_BOX:
            for metric, label in by_metric.items():
                if metric in base:
                    made += _differences("level", scored[label], scored[base[metric]], metric)
    for attack in attacks:
        own = _belongs_to(attack, attacks)
        if attack.label in scored and own is not None and own.label in scored:
            for metric in METRICS:
                made += _differences("control", scored[attack.label], scored[own.label], metric)
    return made


def _belongs_to(attack: NamedAttack, attacks: Sequence[NamedAttack]) -> NamedAttack | None:
    if attack.competes or attack.piece.floor:
        return None
    plain = Setting(repeats=attack.setting.repeats)
    return next(
        (other for other in attacks if other.piece == attack.piece and replace(other.setting, images=None) == plain),
        None,
    )


def _differences(
    kind: Literal["level", "control"], first: Contender, second: Contender, metric: str
) -> Iterator[Comparison]:
    for part in PARTS:
        if part not in first.scores or part not in second.scores:
            continue
        shared = set(first.places[part]) & set(second.places[part])
        if len(shared) < 2:
            continue
        found = paired_difference(first.at(part, metric, shared), second.at(part, metric, shared))
        yield Comparison(
            kind=kind,
            first=first.name,
            second=second.name,
            metric=metric,
            part=part,
            mean=found.mean,
            ci95=found.interval,
            n=found.n,
        )
