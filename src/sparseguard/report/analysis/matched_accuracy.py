"""Defenses at matched accuracy: of each the variant that leaks least among those that keep the accuracy."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import Record
from sparseguard.report.analysis.accuracy_loss import NOT_RECORDED, check_accuracy, choose_selection_splits, has_answers
from sparseguard.report.analysis.adversary import BLACK_BOX, find_chosen_attack
from sparseguard.report.analysis.aggregate import SeedMean, average_over_seeds
from sparseguard.report.analysis.families import TapFamilies, Variant, group_families
from sparseguard.report.analysis.names import CONTROL_DEFENSES, UNDEFENDED
from sparseguard.report.analysis.record_group import RecordGroup
from sparseguard.report.analysis.summary import Measure
from sparseguard.stats import NonInferiority, noninferiority_test


@dataclass(frozen=True)
class Candidate:
    """A variant that may be selected: what it leaks where variants are selected, and whether it keeps the accuracy.

    ``leak`` is the PSNR on auxiliary_val of the attack chosen for black-box, a mean over seeds. ``evidence`` is None
    where there is a ``reason``.
    """

    label: str
    seeds: int
    leak: float | None
    accuracy: SeedMean | None
    evidence: NonInferiority | None
    reason: str | None


@dataclass(frozen=True)
class VariantScores:
    """The variant that stands for its family.

    ``accuracy`` is on test, ``drop`` that of none minus it, on the seeds of both. ``measures`` and ``chosen`` are those
    of the attacks chosen for black-box, ``gains`` what attacks of other adversaries reach more, in PSNR on the same
    private images.
    """

    label: str
    seeds: int
    accuracy: SeedMean | None
    drop: SeedMean | None
    evidence: NonInferiority | None
    measures: dict[str, dict[str, Measure]]
    chosen: dict[str, tuple[str, ...]]
    gains: dict[str, float]


@dataclass(frozen=True)
class FamilyRow:
    """A defense: its variants, how many of them keep the accuracy, and the one selected.

    Where none is selected, ``reason`` says why, and ``most_accurate`` is the variant with the best accuracy on test.
    """

    family: str
    control: bool
    candidates: tuple[Candidate, ...]
    failed: int
    qualified: int
    selected: VariantScores | None
    most_accurate: VariantScores | None
    reason: str | None


@dataclass(frozen=True)
class MatchedAccuracy:
    """The defenses of one data set, backbone, threat and tap at matched accuracy, or why they cannot be matched.

    ``splits`` are those whose images say whether a variant keeps the accuracy, ``n`` of them. ``too_few`` says that not
    even a variant that answers exactly as none does could be shown to. ``uneven`` are the smallest and the largest
    number of variants, where these differ.
    """

    dataset: str
    backbone: str
    threat: str
    tap: str
    max_drop: float
    splits: tuple[str, ...]
    n: int | None
    too_few: bool
    uneven: tuple[int, int] | None
    rows: tuple[FamilyRow, ...]
    reason: str | None


def match_accuracy(group: RecordGroup) -> list[MatchedAccuracy]:
    """Return the comparison at matched accuracy, one for each tap with a defense."""
    return [
        _match(families, group.options.max_drop)
        for families in group_families(group)
        if set(families.families) - {UNDEFENDED}
    ]


def _match(defenses: TapFamilies, max_drop: float) -> MatchedAccuracy:
    base = next((variant for variant in defenses.families.get(UNDEFENDED, ()) if variant.measured), None)
    splits = choose_selection_splits(defenses.records)
    reason = None
    if base is None:
        reason = f"there are no scores of {UNDEFENDED}"
    elif not any(has_answers(record, split) for record in base.measured for split in splits):
        reason = NOT_RECORDED
    rows: tuple[FamilyRow, ...] = ()
    if base is not None and reason is None:
        rows = tuple(_row(name, members, base, splits, max_drop) for name, members in defenses.families.items())
    counts = {len(row.candidates) for row in rows if row.family != UNDEFENDED and row.candidates}
    sizes = [candidate.evidence.n for row in rows for candidate in row.candidates if candidate.evidence]
    n = min(sizes, default=None)
    return MatchedAccuracy(
        dataset=defenses.dataset,
        backbone=defenses.backbone,
        threat=defenses.threat,
        tap=defenses.tap,
        max_drop=max_drop,
        splits=splits,
        n=n,
        too_few=n is not None and not noninferiority_test(0.0, 0.0, n, max_drop).qualifies,
        uneven=(min(counts), max(counts)) if len(counts) > 1 else None,
        rows=rows,
        reason=reason,
    )


def _row(name: str, members: Sequence[Variant], base: Variant, splits: Sequence[str], max_drop: float) -> FamilyRow:
    measured = [variant for variant in members if variant.measured]
    candidates = [_candidate(variant, base, splits, max_drop) for variant in measured]
    pairs = list(zip(measured, candidates, strict=True))
    passing = [
        (candidate.leak, variant, candidate)
        for variant, candidate in pairs
        if candidate.leak is not None and candidate.evidence and candidate.evidence.qualifies
    ]
    qualified = sum(each.evidence is not None and each.evidence.qualifies for each in candidates)
    selected = most_accurate = None
    if name == UNDEFENDED:
        selected, qualified = _scores(base, base, None), len(candidates)
    elif passing:
        _, variant, candidate = min(passing, key=lambda entry: entry[0])
        selected = _scores(variant, base, candidate.evidence)
    elif accuracies := [(each.accuracy.mean, variant, each) for variant, each in pairs if each.accuracy]:
        _, variant, candidate = max(accuracies, key=lambda entry: entry[0])
        most_accurate = _scores(variant, base, candidate.evidence)
    return FamilyRow(
        family=name,
        control=name in CONTROL_DEFENSES,
        candidates=tuple(candidates),
        failed=len(members) - len(measured),
        qualified=qualified,
        selected=selected,
        most_accurate=most_accurate,
        reason=None if selected else _explain(candidates, qualified),
    )


def _explain(candidates: Sequence[Candidate], qualified: int) -> str:
    if not candidates:
        return "every variant failed"
    if qualified:
        return f"no attack was chosen for {BLACK_BOX.label}"
    reasons = dict.fromkeys(candidate.reason for candidate in candidates if candidate.reason)
    return "; ".join(reasons) or "no variant is shown to keep the accuracy"


def _candidate(variant: Variant, base: Variant, splits: Sequence[str], max_drop: float) -> Candidate:
    test = check_accuracy(_pairs(variant, base), splits, max_drop)
    evidence, reason = (test, None) if isinstance(test, NonInferiority) else (None, test)
    return Candidate(
        label=variant.label,
        seeds=len(variant.measured),
        leak=_leak(variant),
        accuracy=average_over_seeds(record.target.accuracy for record in variant.measured if record.target),
        evidence=evidence,
        reason=reason,
    )


def _pairs(variant: Variant, base: Variant) -> list[tuple[Record, Record]]:
    others = {record.case.seed: record for record in base.measured}
    return [(record, others[record.case.seed]) for record in variant.measured if record.case.seed in others]


def _leak(variant: Variant) -> float | None:
    chosen = [find_chosen_attack(record, BLACK_BOX, "psnr") for record in variant.measured]
    scores = [attack.scores.get("auxiliary_val", {}).get("psnr") for attack in chosen if attack]
    known = [score.mean for score in scores if score]
    return statistics.fmean(known) if known and len(known) == len(chosen) else None


def _scores(variant: Variant, base: Variant, evidence: NonInferiority | None) -> VariantScores:
    targets = [(own.target, other.target) for own, other in _pairs(variant, base)]
    row = variant.row
    gains = {}
    for other in variant.rows:
        private = other.measures.get("psnr", {}).get("private")
        if other.adversary and private and private.to_black_box:
            gains[other.label] = private.to_black_box.mean
    return VariantScores(
        label=variant.label,
        seeds=len(variant.measured),
        accuracy=average_over_seeds(record.target.accuracy for record in variant.measured if record.target),
        drop=average_over_seeds(theirs.accuracy - ours.accuracy for ours, theirs in targets if ours and theirs),
        evidence=evidence,
        measures=row.measures if row else {},
        chosen=row.chosen if row else {},
        gains=gains,
    )
