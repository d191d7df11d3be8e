"""Records of attacks on classes to rows: one row a defense and attack, averaged over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sparseguard.record import AttackedClass, ClassInversionAttack, ClassScore, Flag, Record
from sparseguard.report.analysis.aggregate import Spread, spread
from sparseguard.report.analysis.grouping import cells
from sparseguard.report.analysis.summary import FailedSeed, reason_of
from sparseguard.stats import Interval

VARIANTS = ("chance", "other_class", "starts", "all_optimized", "unseen", "shuffled_patches")

Scored = tuple[Record, ClassInversionAttack]


@dataclass(frozen=True)
class SeedScore:
    """A score in one seed, with its 95 % interval."""

    seed: int
    value: float
    ci95: Interval | None


@dataclass(frozen=True)
class ClassMeasure:
    """One score over seeds; ``beside`` holds the same rule applied to other images, by what they are.

    ``ci95`` is the interval of one seed; of several seeds each has its own, in ``seeds``. ``reasons`` say why seeds
    have no value. ``n`` is the smallest number of images of a seed.
    """

    value: Spread | None
    reasons: tuple[str, ...]
    ci95: Interval | None
    seeds: tuple[SeedScore, ...]
    n: int
    direction: Literal["higher", "lower"]
    beside: dict[str, Spread]


@dataclass(frozen=True)
class Confidence:
    """The target's own confidence in the wanted class: of the answer, also under random crops; of what it began with.

    ``starts``: of the candidates the searches started from; ``best_candidate``: of the best one.
    """

    answer: Spread | None
    steady: Spread | None
    starts: Spread | None
    best_candidate: Spread | None


@dataclass(frozen=True)
class OfClass:
    """What was made of one class; ``accuracy`` is attack accuracy@1 by evaluator."""

    accuracy: dict[str, Spread]
    confidence: Confidence


@dataclass(frozen=True)
class ClassRow:
    """One defense and attack, over its seeds; a defense without scores has a row without an attack.

    ``agreement`` is the share of images the evaluators agree on, and kappa. ``rules`` are those by which gradients pass
    sparse layers, with how many seeds each was chosen in.
    """

    dataset: str
    backbone: str
    threat: str
    tap: str
    defense: str
    attack: str | None
    knowledge: str | None
    control: bool
    prior: str | None
    knows: tuple[str, ...]
    settings: dict[str, Any]
    status: Literal["ok", "failed"]
    seeds: int
    accuracy: Spread | None
    scores: dict[str, ClassMeasure]
    confidence: Confidence | None
    agreement: dict[str, Spread]
    classes: dict[str, OfClass]
    rules: dict[str, int]
    diagnostics: dict[str, Spread]
    flags: tuple[Flag, ...]
    failures: tuple[FailedSeed, ...]


def class_rows(records: Sequence[Record]) -> list[ClassRow]:
    """Return the rows of records of attacks on classes: by defense in the recipe's order, controls after attacks.

    Args:
        records: the cases; see `sparseguard.report.analysis.grouping.of_classes`.
    """
    return [row for cell in cells(records) for row in _cell_rows(cell)]


def finite(values: Iterable[float | None]) -> Spread | None:
    """Return mean and standard deviation over seeds of the values that are numbers.

    Example:
        >>> finite([1.0, None, 3.0, float("nan")]).mean
        2.0
    """
    return spread(value for value in values if value is not None and math.isfinite(value))


def together(found: Sequence[dict[str, float]]) -> dict[str, Spread]:
    """Return figures over seeds, by name."""
    names = dict.fromkeys(name for one in found for name in one)
    every = {name: finite(one.get(name) for one in found) for name in names}
    return {name: value for name, value in every.items() if value}


def _cell_rows(cell: Sequence[Record]) -> list[ClassRow]:
    measured = [record for record in cell if record.status == "ok"]
    attackers = [attacker for record in measured for attacker in record.class_attacks]
    names = dict.fromkeys(one.name for one in sorted(attackers, key=lambda one: one.control))
    return [_row(cell, measured, name) for name in names or (None,)]


def _row(cell: Sequence[Record], measured: Sequence[Record], name: str | None) -> ClassRow:
    own = [(record, one) for record in measured for one in record.class_attacks if one.name == name]
    case, first = cell[0].case, own[0][1] if own else None
    seen = dict.fromkeys(label for _, one in own if one.prior for label in one.prior.known_classes)
    return ClassRow(
        dataset=case.dataset,
        backbone=case.backbone,
        threat=case.threat,
        tap=case.tap,
        defense=case.defense,
        attack=name,
        knowledge=first.knowledge if first else None,
        control=first.control if first else False,
        prior=first.prior.name if first and first.prior else None,
        knows=tuple(seen),
        settings={"name": first.attack, **first.hyperparameters} if first else {},
        status="ok" if measured else "failed",
        seeds=len(own),
        accuracy=finite(record.target.accuracy for record in measured if record.target),
        scores={score: _measure(own, score) for score in dict.fromkeys(key for _, one in own for key in one.scores)},
        confidence=_confidence([list(one.classes.values()) for _, one in own]) if own else None,
        agreement=together([_agreement(one) for _, one in own]),
        classes=_classes([one for _, one in own]),
        rules=_rules([one for _, one in own]),
        diagnostics=together([one.diagnostics.figures() for _, one in own]),
        flags=tuple(dict.fromkeys(flag for record in cell for flag in record.flags)),
        failures=tuple(FailedSeed(one.case.seed, reason_of(one.failure)) for one in cell if one.status == "failed"),
    )


def _measure(own: Sequence[Scored], name: str) -> ClassMeasure:
    found = [(record.case.seed, one.scores[name]) for record, one in own if name in one.scores]
    seeds = tuple(SeedScore(seed, value, _ends(score)) for seed, score in found if (value := _value(score)) is not None)
    beside = {variant: finite(getattr(score, variant) for _, score in found) for variant in VARIANTS}
    return ClassMeasure(
        value=finite(one.value for one in seeds),
        reasons=tuple(dict.fromkeys(_reason(score) for _, score in found if _value(score) is None)),
        ci95=seeds[0].ci95 if len(seeds) == 1 else None,
        seeds=seeds,
        n=min(score.n for _, score in found),
        direction=own[0][0].class_inversion.metrics[name].direction if own[0][0].class_inversion else "higher",
        beside={variant: value for variant, value in beside.items() if value},
    )


def _value(score: ClassScore) -> float | None:
    return score.value if score.value is not None and math.isfinite(score.value) else None


def _reason(score: ClassScore) -> str:
    return score.reason or ("no reason recorded" if score.value is None else "its value is not a finite number")


def _ends(score: ClassScore) -> Interval | None:
    return score.ci95 if score.ci95 is not None and all(map(math.isfinite, score.ci95)) else None


def _classes(own: Sequence[ClassInversionAttack]) -> dict[str, OfClass]:
    found: dict[str, list[AttackedClass]] = {}
    for one in own:
        for label, facts in one.classes.items():
            found.setdefault(label, []).append(facts)
    return {
        label: OfClass(together([one.attack_accuracy for one in seeds]), _confidence([[one] for one in seeds]))
        for label, seeds in found.items()
    }


def _confidence(seeds: Sequence[Sequence[AttackedClass]]) -> Confidence:
    """Return means over the classes of each seed, over seeds."""

    def over(name: str) -> Spread | None:
        return finite(statistics.fmean(getattr(one, name) for one in facts) for facts in seeds if facts)

    return Confidence(*map(over, ("confidence", "augmented_confidence", "start_confidence", "best_start_confidence")))


def _rules(own: Sequence[ClassInversionAttack]) -> dict[str, int]:
    chosen = [rule for one in own if (rule := one.diagnostics.gradient_rule)]
    return {rule: chosen.count(rule) for rule in dict.fromkeys(chosen)}


def _agreement(attack: ClassInversionAttack) -> dict[str, float]:
    if attack.agreement is None:
        return {}
    kappa = attack.agreement.kappa
    return {"share": attack.agreement.fraction, **({} if kappa is None else {"kappa": kappa})}
