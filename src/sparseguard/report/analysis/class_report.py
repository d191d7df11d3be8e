"""Class inversion of one data set, backbone and threat: rows, evaluators, priors, numbers of reference images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import EvaluatorFacts, MetricDescription, PriorFacts, Record
from sparseguard.report.analysis.aggregate import SeedMean
from sparseguard.report.analysis.class_summary import ClassRow, average_finite, summarize_class_seeds
from sparseguard.report.analysis.record_group import RecordGroup

_SCORED = "attack accuracy@1 ("


@dataclass(frozen=True)
class Evaluator:
    """An evaluator: its accuracy on test images, and the fraction of images of no class in the class it prefers."""

    name: str
    accuracy: SeedMean | None
    shuffled_patches: SeedMean | None


@dataclass(frozen=True)
class PriorUse:
    """A prior and the attacks that used it."""

    attacks: tuple[str, ...]
    prior: PriorFacts


@dataclass(frozen=True)
class ClassReport:
    """The records of class inversion of one data set, backbone and threat.

    ``pools`` is how many private images of each class, and as many never-seen ones, answers are compared with; several
    where seeds differ. ``pairings`` are the rules by which an image is compared with a private one.
    """

    dataset: str
    backbone: str
    threat: str
    title: str
    sentence: str
    taps: tuple[str, ...]
    classes: tuple[str, ...]
    pools: tuple[int, ...]
    pairings: tuple[str, ...]
    evaluators: tuple[Evaluator, ...]
    priors: tuple[PriorUse, ...]
    rows: tuple[ClassRow, ...]
    metrics: dict[str, MetricDescription]

    @property
    def measured(self) -> list[ClassRow]:
        """The rows of attacks; a defense without scores has a row without an attack."""
        return [row for row in self.rows if row.attack]


def report_classes(group: RecordGroup) -> ClassReport:
    """Return the rows of a group of class inversion, and what they rest on."""
    outcomes = [record.class_inversion for record in group.records if record.class_inversion]
    return ClassReport(
        dataset=group.case.dataset,
        backbone=group.case.backbone,
        threat=group.case.threat,
        title=group.records[0].threat.title,
        sentence=group.records[0].threat.sentence,
        taps=tuple(dict.fromkeys(record.case.tap for record in group.records)),
        classes=tuple(dict.fromkeys(name for outcome in outcomes for name in outcome.classes)),
        pools=tuple(sorted({outcome.pool for outcome in outcomes})),
        pairings=tuple(dict.fromkeys(outcome.pairing for outcome in outcomes)),
        evaluators=_evaluators(group.records),
        priors=_priors(group.records),
        rows=tuple(row for cell in group.cells for row in summarize_class_seeds(cell)),
        metrics={name: metric for outcome in outcomes for name, metric in outcome.metrics.items()},
    )


def _evaluators(records: Sequence[Record]) -> tuple[Evaluator, ...]:
    """Return the evaluators; they are the same for all defenses, so that each seed counts once."""
    seeds = list({record.case.seed: record for record in reversed(records) if record.class_inversion}.values())
    scored = (key for record in records for attack in record.class_attacks for key in attack.scores)
    names = [name for record in seeds for name in record.evaluators]
    names += [key.removeprefix(_SCORED).removesuffix(")") for key in scored if key.startswith(_SCORED)]

    def seed_facts(name: str) -> list[EvaluatorFacts]:
        return [record.evaluators[name] for record in seeds if name in record.evaluators]

    return tuple(
        Evaluator(
            name,
            average_finite(facts.accuracy for facts in seed_facts(name)),
            average_finite(facts.shuffled_patches for facts in seed_facts(name)),
        )
        for name in dict.fromkeys(names)
    )


def _priors(records: Sequence[Record]) -> tuple[PriorUse, ...]:
    uses: dict[str, tuple[PriorFacts, dict[str, None]]] = {}
    for attack in (attack for record in records for attack in record.class_attacks):
        if attack.prior is not None:
            _, attacks = uses.setdefault(attack.prior.model_dump_json(), (attack.prior, {}))
            attacks[attack.name] = None
    return tuple(PriorUse(tuple(attacks), prior) for prior, attacks in uses.values())
