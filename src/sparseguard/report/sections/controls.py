"""Section with controls: attacks under other conditions, each beside the attack it belongs to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sparseguard.record import FeatureInversionAttack, Record
from sparseguard.report.analysis.adversary import Adversary
from sparseguard.report.analysis.aggregate import (
    Difference,
    SeedMean,
    average_comparisons,
    average_over_seeds,
    find_comparison,
)
from sparseguard.report.analysis.names import SPLITS
from sparseguard.report.analysis.per_image import PicturesBySlug
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.html.environment import render_html
from sparseguard.report.section import Section
from sparseguard.report.text.wording import describe_conditions

Scored = tuple[Record, FeatureInversionAttack]


@dataclass(frozen=True)
class ControlMeasure:
    """A control's mean, that of the attack it belongs to on the same images, and control minus attack."""

    control: SeedMean | None
    attack: SeedMean | None
    difference: Difference | None


@dataclass(frozen=True)
class Control:
    """One control under one defense, over its seeds; ``measures`` is by metric, then by split."""

    dataset: str
    backbone: str
    threat: str
    tap: str
    defense: str
    name: str
    knowledge: str
    queries: int
    conditions: tuple[str, ...]
    attacks: tuple[str, ...]
    seeds: int
    measures: dict[str, dict[str, ControlMeasure]]

    @property
    def label(self) -> str:
        """Its adversary in a few words."""
        return Adversary(self.knowledge, self.queries).label


@dataclass(frozen=True)
class ControlData:
    """The controls of a group."""

    group: RecordGroup
    controls: list[Control]


class Controls(Section[ControlData]):
    """Controls beside the attacks they belong to."""

    kinds = (Kind.FEATURE_INVERSION,)
    keys = ("controls",)

    def collect(self, group: RecordGroup) -> ControlData | None:
        """Return the controls of a group, where it has some."""
        controls = compare_controls(group)
        return ControlData(group, controls) if controls else None

    def html(self, data: ControlData) -> str:
        """Return a table with a row a control."""
        return render_html("controls.html.j2", controls=data.controls, metrics=data.group.metrics)

    def json(self, data: ControlData) -> dict[str, list[Any]]:
        """Return ``controls``."""
        return {"controls": data.controls}


def compare_controls(group: RecordGroup) -> list[Control]:
    """Return the controls of a group, by defense."""
    return [control for cell in group.cells for control in _cell_controls(cell, group.pictures, group.metrics)]


def _cell_controls(cell: Sequence[Record], pictures: PicturesBySlug, metrics: Collection[str]) -> list[Control]:
    by_name: dict[str, list[Scored]] = {}
    for record in cell:
        for attack in record.attacks:
            if attack.control:
                by_name.setdefault(attack.name, []).append((record, attack))
    return [_control(scored, pictures, metrics) for scored in by_name.values()]


def _control(scored: Sequence[Scored], pictures: PicturesBySlug, metrics: Collection[str]) -> Control:
    record, first = scored[0]
    outcomes = [each.feature_inversion for each, _ in scored if each.feature_inversion]
    comparisons = [comparison for outcome in outcomes for comparison in outcome.comparisons]
    attacks = {each.second for each in comparisons if each.kind == "control" and each.first == first.name}
    return Control(
        dataset=record.case.dataset,
        backbone=record.case.backbone,
        threat=record.case.threat,
        tap=record.case.tap,
        defense=record.case.defense,
        name=first.name,
        knowledge=first.knowledge,
        queries=first.queries,
        conditions=describe_conditions(first.conditions),
        attacks=tuple(sorted(attacks)),
        seeds=len(scored),
        measures={
            metric: {
                split: _measure(scored, pictures, metric, split)
                for split in SPLITS
                if any(split in attack.scores for _, attack in scored)
            }
            for metric in metrics
        },
    )


def _measure(scored: Sequence[Scored], pictures: PicturesBySlug, metric: str, split: str) -> ControlMeasure:
    measured = [(record, attack) for record, attack in scored if metric in attack.scores.get(split, {})]
    comparisons = [
        (record, comparison)
        for record, attack in measured
        if (comparison := find_comparison(record, "control", attack.name, metric, split))
    ]
    references = (_reference(record, attack, metric, split) for record, attack in measured)
    return ControlMeasure(
        control=average_over_seeds(attack.scores[split][metric].mean for _, attack in measured),
        attack=average_over_seeds(mean for mean in references if mean is not None),
        difference=average_comparisons(comparisons, pictures),
    )


def _reference(record: Record, control: FeatureInversionAttack, metric: str, split: str) -> float | None:
    """Return the mean of the attack a control belongs to, on the control's images."""
    comparison = find_comparison(record, "control", control.name, metric, split)
    summary = control.scores[split][metric]
    return summary.mean - comparison.mean if comparison and comparison.n == summary.n else None
