"""What the report tells of attacks on classes: rows, and what they rest on: evaluators, priors, pools of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import PriorFacts, Record
from sparseguard.report.analysis.aggregate import Spread
from sparseguard.report.analysis.class_summary import ClassRow, class_rows, finite
from sparseguard.report.analysis.grouping import cells, class_sections

_SCORED = "attack accuracy@1 ("


@dataclass(frozen=True)
class Judge:
    """An evaluator: its accuracy on test images, and the share of foreign images in the class it prefers for them."""

    name: str
    accuracy: Spread | None
    foreign: Spread | None


@dataclass(frozen=True)
class GivenPrior:
    """A generator and the attacks it was given to."""

    attacks: tuple[str, ...]
    prior: PriorFacts


@dataclass(frozen=True)
class ClassSection:
    """The records of one data set, backbone and threat to classes.

    ``pools`` is how many private images of each class, and as many never-seen ones, are compared with; several where
    seeds differ. ``pairings`` are the rules by which an image is compared with a private one.
    """

    dataset: str
    backbone: str
    threat: str
    taps: tuple[str, ...]
    classes: tuple[str, ...]
    pools: tuple[int, ...]
    pairings: tuple[str, ...]
    evaluators: tuple[Judge, ...]
    priors: tuple[GivenPrior, ...]
    rows: tuple[ClassRow, ...]


def class_reports(records: Sequence[Record]) -> list[ClassSection]:
    """Return what is told of the attacks on classes among records, in the order of the report.

    Args:
        records: the cases; those of attacks on images are left out.
    """
    return [class_report(section) for section in class_sections(records)]


def class_report(section: Sequence[Record]) -> ClassSection:
    """Return what is told of records of one data set, backbone and threat to classes."""
    case = section[0].case
    goals = [record.class_inversion for record in section if record.class_inversion]
    return ClassSection(
        dataset=case.dataset,
        backbone=case.backbone,
        threat=case.threat,
        taps=tuple(dict.fromkeys(record.case.tap for record in section)),
        classes=tuple(dict.fromkeys(name for goal in goals for name in goal.classes)),
        pools=tuple(sorted({goal.pool for goal in goals})),
        pairings=tuple(dict.fromkeys(goal.pairing for goal in goals)),
        evaluators=_judges(section),
        priors=_priors(section),
        rows=tuple(class_rows(section)),
    )


def _judges(section: Sequence[Record]) -> tuple[Judge, ...]:
    """Return the evaluators; they are the same for all defenses, so that each seed counts once."""
    seeds = list({record.case.seed: record for record in reversed(section) if record.class_inversion}.values())
    scored = (key for record in section for one in record.class_attacks for key in one.scores)
    names = [name for record in seeds for name in record.evaluators]
    names += [key.removeprefix(_SCORED).removesuffix(")") for key in scored if key.startswith(_SCORED)]
    return tuple(
        Judge(
            name,
            finite(record.evaluators[name].accuracy for record in seeds if name in record.evaluators),
            finite(record.evaluators[name].shuffled_patches for record in seeds if name in record.evaluators),
        )
        for name in dict.fromkeys(names)
    )


def _priors(section: Sequence[Record]) -> tuple[GivenPrior, ...]:
    found: list[tuple[PriorFacts, list[str]]] = []
    for attacker in (one for cell in cells(section) for record in cell for one in record.class_attacks):
        if attacker.prior is None:
            continue
        names = next((names for prior, names in found if prior == attacker.prior), None)
        if names is None:
            found.append((attacker.prior, [attacker.name]))
        elif attacker.name not in names:
            names.append(attacker.name)
    return tuple(GivenPrior(tuple(names), prior) for prior, names in found)
