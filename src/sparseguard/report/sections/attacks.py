"""Section with every attack and floor of feature inversion, private minus test, and skipped attacks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sparseguard.record import Case, FeatureInversionAttack, MetricDescription, Record
from sparseguard.report.analysis.adversary import Adversary, find_chosen_attack, list_adversaries
from sparseguard.report.analysis.aggregate import compute_intervals
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section
from sparseguard.report.text.wording import describe_conditions
from sparseguard.stats import Interval


@dataclass(frozen=True)
class SkippedAttack:
    """An attack that does not apply to a case, and why."""

    case: Case
    attack: str
    reason: str


@dataclass(frozen=True)
class AttackData:
    """A group with its skipped attacks."""

    group: RecordGroup
    skipped: list[SkippedAttack]


@dataclass(frozen=True)
class CaseAttacks:
    """Attacks of one case, as the page shows them."""

    record: Record
    attacks: list[FeatureInversionAttack]
    metrics: dict[str, MetricDescription]
    set_metrics: list[str]
    chosen: set[tuple[str, str]]
    intervals: dict[tuple[str, str, str], Interval]
    residuals: bool


class Attacks(Section[AttackData]):
    """All attacks and floors with their settings, quantiles, residuals and scores of whole sets."""

    kinds = (Kind.FEATURE_INVERSION,)
    keys = ("skipped",)

    def collect(self, group: RecordGroup) -> AttackData | None:
        """Return the group and its skipped attacks."""
        skipped = [
            SkippedAttack(record.case, name, reason)
            for record in group.records
            if record.feature_inversion
            for name, reason in record.feature_inversion.skipped.items()
        ]
        return AttackData(group, skipped)

    def html(self, data: AttackData) -> str:
        """Return a table of attacks for each case, private minus test, and the skipped attacks."""
        group = data.group
        return render_html(
            "attacks.html.j2",
            cases=[_case(record, group) for record in group.records if record.status == "ok"],
            rows=group.rows,
            metrics=group.metrics,
            skipped=data.skipped,
            with_scores=bool(group.pictures),
            describe_conditions=describe_conditions,
            describe_role=describe_role,
            describe_adversary=_adversary_label,
        )

    def json(self, data: AttackData) -> dict[str, list[Any]]:
        """Return ``skipped``."""
        return {"skipped": [asdict(each) for each in data.skipped]}


def describe_role(attack: FeatureInversionAttack) -> str:
    """Return whether an attack is a floor, a control or neither."""
    return "floor" if attack.floor else "control" if attack.control else "attack"


def _adversary_label(attack: FeatureInversionAttack) -> str:
    return Adversary(attack.knowledge, attack.queries).label


def _case(record: Record, group: RecordGroup) -> CaseAttacks:
    descriptions = record.feature_inversion.metrics if record.feature_inversion else {}
    names = dict.fromkeys(
        name for attack in record.attacks for by_metric in attack.scores.values() for name in by_metric
    )
    set_names = dict.fromkeys(
        name for attack in record.attacks for by_name in attack.set_scores.values() for name in by_name
    )
    chosen = {
        (attack.name, metric)
        for adversary in list_adversaries(record)
        for metric in group.metrics
        if (attack := find_chosen_attack(record, adversary, metric))
    }
    unknown = MetricDescription(label="", digits=3, direction="higher")
    return CaseAttacks(
        record=record,
        attacks=record.attacks,
        metrics={name: descriptions.get(name, unknown.model_copy(update={"label": name})) for name in names},
        set_metrics=list(set_names),
        chosen=chosen,
        intervals=compute_intervals(record, group.pictures),
        residuals=any(attack.residuals for attack in record.attacks),
    )
