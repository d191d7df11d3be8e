"""Accuracy against leak: every variant a point, and the variants that no other one beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.report.analysis.families import TapFamilies, Variant, group_families
from sparseguard.report.analysis.names import CONTROL_DEFENSES
from sparseguard.report.analysis.record_group import RecordGroup
from sparseguard.report.analysis.summary import Measure


@dataclass(frozen=True)
class Point:
    """A variant: accuracy on test, and PSNR on private images of the attack chosen for black-box, means over seeds.

    ``n`` of ``total`` private images were attacked. ``frontier`` says that no other variant leaks as little at as much
    accuracy.
    """

    family: str
    control: bool
    label: str
    seeds: int
    accuracy: float
    psnr: float
    n: int | None
    total: int | None
    frontier: bool

    @property
    def partial(self) -> bool:
        """Whether only a subset of the images was attacked."""
        return self.n is not None and self.total is not None and self.n < self.total


@dataclass(frozen=True)
class Pareto:
    """The points of one data set, backbone, threat and tap.

    ``floors`` are the lowest and the highest PSNR on private images of a variant's best floor; they differ where floors
    use features of the tap.
    """

    dataset: str
    backbone: str
    threat: str
    tap: str
    floors: tuple[float, float] | None
    points: tuple[Point, ...]


def find_pareto(group: RecordGroup) -> list[Pareto]:
    """Return accuracy and leak of every variant, for each tap with several."""
    return [pareto for families in group_families(group) if len((pareto := _pareto(families)).points) > 1]


def find_frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that are not dominated, by rising accuracy.

    A point, accuracy and leak, is dominated by another one that has at least its accuracy and at most its leak, and is
    better in one of the two. Equal points do not dominate each other.

    Example:
        >>> find_frontier([(0.9, 20.0), (0.8, 15.0), (0.7, 16.0), (0.9, 21.0)])
        [1, 0]
    """
    best: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (-points[index][0], points[index][1])):
        if not best or points[index][1] < points[best[-1]][1] or points[index] == points[best[-1]]:
            best.append(index)
    return best[::-1]


def _pareto(defenses: TapFamilies) -> Pareto:
    measured = [
        (name, variant, *values)
        for name, members in defenses.families.items()
        for variant in members
        if (values := _values(variant)) is not None
    ]
    best = set(find_frontier([(accuracy, psnr) for _, _, accuracy, psnr, _ in measured]))
    points = tuple(
        Point(
            family=name,
            control=name in CONTROL_DEFENSES,
            label=variant.label,
            seeds=len(variant.measured),
            accuracy=accuracy,
            psnr=psnr,
            n=measure.n,
            total=measure.total,
            frontier=index in best,
        )
        for index, (name, variant, accuracy, psnr, measure) in enumerate(measured)
    )
    floors = [measure.floor for *_, measure in measured if measure.floor is not None]
    return Pareto(
        defenses.dataset,
        defenses.backbone,
        defenses.threat,
        defenses.tap,
        (min(floors), max(floors)) if floors else None,
        points,
    )


def _values(variant: Variant) -> tuple[float, float, Measure] | None:
    row = variant.row
    measure = row.measures.get("psnr", {}).get("private") if row else None
    if row is None or row.accuracy is None or measure is None or measure.score is None:
        return None
    return row.accuracy.mean, measure.score.mean, measure
