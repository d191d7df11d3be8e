"""Records of class inversion as rows: one row a defense and attack, averaged over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sparseguard.record import AttackedClass, ClassInversionAttack, ClassScore, Flag, Record
from sparseguard.report.analysis.aggregate import SeedMean, average_over_seeds
from sparseguard.report.analysis.summary import FailedSeed, list_failed_seeds
from sparseguard.stats import Interval

REFERENCES = ("chance", "other_class", "starts", "all_optimized", "unseen", "shuffled_patches")

Scored = tuple[Record, ClassInversionAttack]


@dataclass(frozen=True)
class SeedScore:
    """A score in one seed, with its 95 % interval."""

    seed: int
    value: float
    ci95: Interval | None


@dataclass(frozen=True)
class ClassMeasure:
    """One score over seeds; ``references`` holds the same score of other images, by what they are.

    ``ci95`` is the interval of one seed; of several seeds each has its own, in ``seeds``. ``reasons`` say why seeds
    have no value. ``n`` is the smallest number of images of a seed.
    """

    value: SeedMean | None
    reasons: tuple[str, ...]
    ci95: Interval | None
    seeds: tuple[SeedScore, ...]
    n: int
    references: dict[str, SeedMean]


@dataclass(frozen=True)
class Confidence:
    """The target's confidence in the attacked class.

    ``answer``: of the attack's answer, ``augmented``: of the answer under random crops, ``starts``: of the candidates
    that the searches started from, ``best_candidate``: of the best of these.
    """

    answer: SeedMean | None
    augmented: SeedMean | None
    starts: SeedMean | None
    best_candidate: SeedMean | None


@dataclass(frozen=True)
class ClassResult:
    """Result of an attack for one class; ``accuracy`` is attack accuracy@1 by evaluator."""

    accuracy: dict[str, SeedMean]
    confidence: Confidence


@dataclass(frozen=True)
class ClassRow:
    """One defense and attack, over its seeds; a defense without scores has a row without an attack.

    ``agreement`` is the fraction of images the evaluators agree on, ``kappa`` Cohen's. ``rules`` are those by which
    gradients pass sparse layers, each with the number of seeds that chose it.
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
    known_classes: tuple[str, ...]
    hyperparameters: dict[str, Any]
    status: Literal["ok", "failed"]
    seeds: int
    accuracy: SeedMean | None
    scores: dict[str, ClassMeasure]
    confidence: Confidence | None
    agreement: SeedMean | None
    kappa: SeedMean | None
    classes: dict[str, ClassResult]
    rules: dict[str, int]
    diagnostics: dict[str, SeedMean]
    flags: tuple[Flag, ...]
    failures: tuple[FailedSeed, ...]

    def repeats_target(self, previous: ClassRow | None) -> bool:
        """Return whether the row before is of the same target."""
        return previous is not None and (previous.defense, previous.tap) == (self.defense, self.tap)


def summarize_class_seeds(cell: Sequence[Record]) -> list[ClassRow]:
    """Return the rows of records that differ in nothing but the seed, one an attack, controls after attacks."""
    measured = [record for record in cell if record.status == "ok"]
    attacks = [attack for record in measured for attack in record.class_attacks]
    names = dict.fromkeys(attack.name for attack in sorted(attacks, key=lambda attack: attack.control))
    return [_row(cell, measured, name) for name in names or (None,)]


def average_finite(values: Iterable[float | None]) -> SeedMean | None:
    """Return mean and standard deviation over seeds of the values that are numbers.

    Example:
        >>> average_finite([1.0, None, 3.0, float("nan")]).mean
        2.0
    """
    return average_over_seeds(value for value in values if value is not None and math.isfinite(value))


def average_by_name(seeds: Sequence[dict[str, float]]) -> dict[str, SeedMean]:
    """Return figures over seeds, by name."""
    names = dict.fromkeys(name for figures in seeds for name in figures)
    means = {name: average_finite(figures.get(name) for figures in seeds) for name in names}
    return {name: mean for name, mean in means.items() if mean}


def _row(cell: Sequence[Record], measured: Sequence[Record], name: str | None) -> ClassRow:
    scored = [(record, each) for record in measured for each in record.class_attacks if each.name == name]
    attacks = [attack for _, attack in scored]
    case, first = cell[0].case, attacks[0] if attacks else None
    known = dict.fromkeys(label for attack in attacks if attack.prior for label in attack.prior.known_classes)
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
        known_classes=tuple(known),
        hyperparameters=first.hyperparameters if first else {},
        status="ok" if measured else "failed",
        seeds=len(scored),
        accuracy=average_finite(record.target.accuracy for record in measured if record.target),
        scores={
            score: _measure(scored, score) for score in dict.fromkeys(key for each in attacks for key in each.scores)
        },
        confidence=_confidence([list(each.classes.values()) for each in attacks]) if attacks else None,
        agreement=average_finite(each.agreement.fraction for each in attacks if each.agreement),
        kappa=average_finite(each.agreement.kappa for each in attacks if each.agreement),
        classes=_classes(attacks),
        rules=_rules(attacks),
        diagnostics=average_by_name([each.diagnostics.figures() for each in attacks]),
        flags=tuple(dict.fromkeys(flag for record in cell for flag in record.flags)),
        failures=list_failed_seeds(cell),
    )


def _measure(scored: Sequence[Scored], name: str) -> ClassMeasure:
    scores = [(record.case.seed, each.scores[name]) for record, each in scored if name in each.scores]
    seeds = tuple(
        SeedScore(seed, value, _interval(score)) for seed, score in scores if (value := _value(score)) is not None
    )
    references = {variant: average_finite(getattr(score, variant) for _, score in scores) for variant in REFERENCES}
    return ClassMeasure(
        value=average_finite(each.value for each in seeds),
        reasons=tuple(dict.fromkeys(_reason(score) for _, score in scores if _value(score) is None)),
        ci95=seeds[0].ci95 if len(seeds) == 1 else None,
        seeds=seeds,
        n=min(score.n for _, score in scores),
        references={variant: value for variant, value in references.items() if value},
    )


def _value(score: ClassScore) -> float | None:
    return score.value if score.value is not None and math.isfinite(score.value) else None


def _reason(score: ClassScore) -> str:
    return score.reason or ("no reason recorded" if score.value is None else "its value is not a finite number")


def _interval(score: ClassScore) -> Interval | None:
    return score.ci95 if score.ci95 is not None and all(map(math.isfinite, score.ci95)) else None


def _classes(attacks: Sequence[ClassInversionAttack]) -> dict[str, ClassResult]:
    by_class: dict[str, list[AttackedClass]] = {}
    for attack in attacks:
        for label, facts in attack.classes.items():
            by_class.setdefault(label, []).append(facts)
    return {
        label: ClassResult(
            average_by_name([facts.attack_accuracy for facts in seeds]), _confidence([[facts] for facts in seeds])
        )
        for label, seeds in by_class.items()
    }


def _confidence(seeds: Sequence[Sequence[AttackedClass]]) -> Confidence:
    """Return means over the classes of each seed, over seeds."""

    def average(name: str) -> SeedMean | None:
        return average_finite(statistics.fmean(getattr(facts, name) for facts in seed) for seed in seeds if seed)

    return Confidence(
        *map(average, ("confidence", "augmented_confidence", "start_confidence", "best_start_confidence"))
    )


def _rules(attacks: Sequence[ClassInversionAttack]) -> dict[str, int]:
    chosen = [attack.diagnostics.gradient_rule for attack in attacks if attack.diagnostics.gradient_rule]
    return {rule: chosen.count(rule) for rule in dict.fromkeys(chosen)}
