"""Accuracy against leak: every setting a point, and the settings that no other one beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import Record
from sparseguard.report.analysis.families import Grid, Setting, grids
from sparseguard.report.analysis.summary import Row
from sparseguard.report.text.wording import CONTROLS


@dataclass(frozen=True)
class Point:
    """A setting: accuracy on test, and PSNR on private images of the attacker chosen at black-box, means over seeds.

    ``n`` is how many of ``of`` private images were attacked. ``frontier`` says that no other setting leaks as little at
    as much accuracy.
    """

    family: str
    control: bool
    label: str
    seeds: int
    accuracy: float
    psnr: float
    n: int | None
    of: int | None
    frontier: bool


@dataclass(frozen=True)
class Pareto:
    """The points of one data set, backbone, threat and tap.

    ``floors`` are the lowest and the highest PSNR on private images of a setting's best floor; they differ where floors
    use what leaks.
    """

    dataset: str
    backbone: str
    threat: str
    tap: str
    floors: tuple[float, float] | None
    points: tuple[Point, ...]


def pareto(records: Sequence[Record], rows: Sequence[Row]) -> list[Pareto]:
    """Return accuracy and leak of every setting, for each data set, backbone, threat and tap with several.

    Args:
        records: the cases.
        rows: their rows.
    """
    found = [_of_grid(grid) for grid in grids(records, rows)]
    return [one for one in found if len(one.points) > 1]


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points that are not dominated, by rising accuracy.

    A point, accuracy and leak, is dominated by another one that has at least its accuracy and at most its leak, and is
    better in one of the two. Equal points do not dominate each other.

    Example:
        >>> frontier([(0.9, 20.0), (0.8, 15.0), (0.7, 16.0), (0.9, 21.0)])
        [1, 0]
    """
    kept: list[int] = []
    for at in sorted(range(len(points)), key=lambda place: (-points[place][0], points[place][1])):
        if not kept or points[at][1] < points[kept[-1]][1] or points[at] == points[kept[-1]]:
            kept.append(at)
    return kept[::-1]


def _of_grid(grid: Grid) -> Pareto:
    there = [
        (name, one, found)
        for name, members in grid.families.items()
        for one in members
        if (found := _values(one)) is not None
    ]
    best = set(frontier([found for _, _, found in there]))
    measures = [one.row.measures["psnr"]["private"] for _, one, _ in there if one.row]
    points = tuple(
        Point(
            family=name,
            control=name in CONTROLS,
            label=one.label,
            seeds=len(one.measured),
            accuracy=accuracy,
            psnr=psnr,
            n=measure.n,
            of=measure.of,
            frontier=at in best,
        )
        for at, ((name, one, (accuracy, psnr)), measure) in enumerate(zip(there, measures, strict=True))
    )
    floors = [measure.floor for measure in measures if measure.floor is not None]
    return Pareto(
        grid.dataset, grid.backbone, grid.threat, grid.tap, (min(floors), max(floors)) if floors else None, points
    )


def _values(setting: Setting) -> tuple[float, float] | None:
    row = setting.row
    measure = row.measures.get("psnr", {}).get("private") if row else None
    if row is None or row.accuracy is None or measure is None or measure.leaked is None:
        return None
    return row.accuracy.mean, measure.leaked.mean
