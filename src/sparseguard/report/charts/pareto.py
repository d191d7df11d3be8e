"""The geometry of the Pareto plot: points, and the line through the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.report.analysis.pareto import Pareto, Point
from sparseguard.report.charts.axis import linear
from sparseguard.report.charts.label_placement import LETTER, LINE, Box, Name, Place, names
from sparseguard.report.text.wording import UNDEFENDED, number

LEFT, RIGHT, TOP, BOTTOM = 56.0, 680.0, 14.0, 446.0
"""The plot; to the right of it is room for names, up to ``EDGE``."""
EDGE = 876.0
COLOURS = 6
SHAPES = (
    "M-5,0A5,5 0 1 0 5,0A5,5 0 1 0 -5,0Z",
    "M-4.5,-4.5H4.5V4.5H-4.5Z",
    "M0,-5.8L5.4,4.2H-5.4Z",
    "M0,-6.2L5.6,0L0,6.2L-5.6,0Z",
    "M0,5.8L5.4,-4.2H-5.4Z",
)
"""Outlines around the origin; with 6 colours, 30 families look different."""


@dataclass(frozen=True)
class Marker:
    """A point's place, outline and colour, and the words shown when it is pointed at."""

    x: float
    y: float
    shape: str
    colour: int
    best: bool
    words: str


@dataclass(frozen=True)
class FamilyKey:
    """A family in the legend."""

    family: str
    control: bool
    settings: int
    shape: str
    colour: int


@dataclass(frozen=True)
class ParetoChart:
    """Everything the picture's template needs; ticks are positions and words, ``steps`` a path, heights are pixels."""

    tap: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    floor: float | None
    floor_height: float
    floor_words: str
    kept: float | None
    kept_words: str
    steps: str
    markers: tuple[Marker, ...]
    names: tuple[Name, ...]
    legend: tuple[FamilyKey, ...]
    best: tuple[str, ...]
    partial: bool


def draw_pareto(found: Pareto, max_drop: float) -> ParetoChart:
    """Return the plot of a grid's points, with a line at the accuracy that may be lost."""
    points = found.points
    across = linear([point.accuracy for point in points], least=0.02)
    up = linear([*(point.psnr for point in points), *(found.floors or ())], least=1.0)
    base = next((point for point in points if point.family == UNDEFENDED), None)

    def place(accuracy: float, psnr: float) -> Place:
        return LEFT + (RIGHT - LEFT) * across.share(accuracy), BOTTOM - (BOTTOM - TOP) * up.share(psnr)

    families = list(dict.fromkeys(point.family for point in points))
    placed = [place(point.accuracy, point.psnr) for point in points]
    best = sorted((at for at, point in enumerate(points) if point.frontier), key=lambda at: placed[at])
    named = sorted(
        (
            (spot, points[at].label)
            for at, spot in enumerate(placed)
            if points[at].frontier or points[at].family == UNDEFENDED
        ),
        reverse=True,
    )
    styles = {name: (SHAPES[at % len(SHAPES)], at % COLOURS) for at, name in enumerate(families)}
    low, high = (place(across.low, one)[1] for one in found.floors) if found.floors else (None, None)
    floor_words = _floor_words(found.floors)
    kept = None
    if base is not None and base.accuracy - max_drop >= across.low:
        kept = place(base.accuracy - max_drop, up.low)[0]
    kept_words = f"none minus {max_drop:g}"
    taken: list[Box] = []
    if high is not None:
        taken.append((LEFT, high - LINE, LEFT + LETTER * len(floor_words), high + 2.0))
    if kept is not None:
        taken.append((kept, BOTTOM - LINE - 4.0, kept + LETTER * len(kept_words), BOTTOM))
    return ParetoChart(
        tap=found.tap,
        x_ticks=tuple((place(at, up.low)[0], words) for at, words in across.ticks),
        y_ticks=tuple((place(across.low, at)[1], words) for at, words in up.ticks),
        floor=high,
        floor_height=0.0 if low is None or high is None else low - high,
        floor_words=floor_words,
        kept=kept,
        kept_words=kept_words,
        steps=_steps([placed[at] for at in best]),
        markers=tuple(
            Marker(x, y, *styles[point.family], best=point.frontier, words=_words(point))
            for point, (x, y) in zip(points, placed, strict=True)
        ),
        names=tuple(names(named, placed, (LEFT, TOP, EDGE, BOTTOM), taken)),
        legend=tuple(
            FamilyKey(
                family=name,
                control=any(point.control for point in points if point.family == name),
                settings=sum(point.family == name for point in points),
                shape=styles[name][0],
                colour=styles[name][1],
            )
            for name in families
        ),
        best=tuple(_words(points[at]) for at in best),
        partial=any(_partial(point) for point in points),
    )


def _partial(point: Point) -> bool:
    return point.n is not None and point.of is not None and point.n < point.of


def _floor_words(floors: tuple[float, float] | None) -> str:
    if floors is None:
        return ""
    ends = list(dict.fromkeys(number(one, 2) for one in floors))
    return f"best floor, {' to '.join(ends)} dB"


def _words(point: Point) -> str:
    some = f", n = {point.n:,} of {point.of:,}" if _partial(point) else ""
    return f"{point.label}: accuracy {number(point.accuracy, 3)}, {number(point.psnr, 2)} dB{some}"


def _steps(best: Sequence[Place]) -> str:
    """Return the line of the least that leaks at each accuracy or more, from left to right."""
    if not best:
        return ""
    path = f"M{LEFT:.1f},{best[0][1]:.1f}"
    for x, y in best:
        path += f"V{y:.1f}H{x:.1f}"
    return f"{path}V{TOP:.1f}"
