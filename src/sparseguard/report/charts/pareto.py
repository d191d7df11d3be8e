"""Geometry of the Pareto plot: points, and the line through the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.report.analysis.names import UNDEFENDED
from sparseguard.report.analysis.pareto_front import Pareto, Point
from sparseguard.report.charts.axis import Axis, fit_linear_axis
from sparseguard.report.charts.label_placement import LETTER, LINE, Box, Label, Position, place_labels
from sparseguard.report.text.numbers import format_number

LEFT, RIGHT, TOP, BOTTOM = 56.0, 680.0, 14.0, 446.0
"""The plot; labels may stand to the right of it, up to ``EDGE``."""
EDGE = 876.0
MAX_LABELS = 60
"""Labels of more points would cover each other; a pointer still shows theirs."""
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
    """A point's position, outline and colour, and the words a pointer shows."""

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
    variants: int
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
    limit: float | None
    limit_words: str
    steps: str
    markers: tuple[Marker, ...]
    labels: tuple[Label, ...]
    legend: tuple[FamilyKey, ...]
    best: tuple[str, ...]
    partial: bool


@dataclass(frozen=True)
class _Scales:
    x: Axis
    y: Axis

    def place(self, accuracy: float, psnr: float) -> Position:
        left = LEFT + (RIGHT - LEFT) * self.x.fraction(accuracy)
        return left, BOTTOM - (BOTTOM - TOP) * self.y.fraction(psnr)


def draw_pareto(pareto: Pareto, max_drop: float) -> ParetoChart:
    """Return the plot of a tap's points, with a line at the accuracy that may be lost."""
    points = pareto.points
    scales = _Scales(
        fit_linear_axis([point.accuracy for point in points], least=0.02),
        fit_linear_axis([*(point.psnr for point in points), *(pareto.floors or ())], least=1.0),
    )
    positions = [scales.place(point.accuracy, point.psnr) for point in points]
    best = sorted((index for index, point in enumerate(points) if point.frontier), key=lambda index: positions[index])
    families: dict[str, list[Point]] = {}
    for point in points:
        families.setdefault(point.family, []).append(point)
    styles = {name: (SHAPES[rank % len(SHAPES)], rank % COLOURS) for rank, name in enumerate(families)}
    low, high = (scales.place(scales.x.low, end)[1] for end in pareto.floors) if pareto.floors else (None, None)
    floor_words, limit_words = _floor_words(pareto.floors), f"none minus {max_drop:g}"
    limit = _limit(points, scales, max_drop)
    occupied: list[Box] = []
    if high is not None:
        occupied.append((LEFT, high - LINE, LEFT + LETTER * len(floor_words), high + 2.0))
    if limit is not None:
        occupied.append((limit, BOTTOM - LINE - 4.0, limit + LETTER * len(limit_words), BOTTOM))
    return ParetoChart(
        tap=pareto.tap,
        x_ticks=tuple((scales.place(tick, scales.y.low)[0], words) for tick, words in scales.x.ticks),
        y_ticks=tuple((scales.place(scales.x.low, tick)[1], words) for tick, words in scales.y.ticks),
        floor=high,
        floor_height=0.0 if low is None or high is None else low - high,
        floor_words=floor_words,
        limit=limit,
        limit_words=limit_words,
        steps=_steps([positions[index] for index in best]),
        markers=tuple(
            Marker(x, y, *styles[point.family], best=point.frontier, words=_words(point))
            for point, (x, y) in zip(points, positions, strict=True)
        ),
        labels=tuple(place_labels(_labeled(points, positions), positions, (LEFT, TOP, EDGE, BOTTOM), occupied)),
        legend=tuple(
            FamilyKey(name, any(point.control for point in members), len(members), *styles[name])
            for name, members in families.items()
        ),
        best=tuple(_words(points[index]) for index in best),
        partial=any(point.partial for point in points),
    )


def _labeled(points: Sequence[Point], positions: Sequence[Position]) -> list[tuple[Position, str]]:
    """Return the positions and labels of none and of the frontier, the most accurate first."""
    base = [index for index, point in enumerate(points) if point.family == UNDEFENDED]
    frontier = [index for index, point in enumerate(points) if point.frontier and point.family != UNDEFENDED]
    frontier.sort(key=lambda index: positions[index], reverse=True)
    labels = [(positions[index], points[index].label) for index in (base + frontier)[:MAX_LABELS]]
    return sorted(labels, reverse=True)


def _limit(points: Sequence[Point], scales: _Scales, max_drop: float) -> float | None:
    """Return the position of the least accuracy that a variant may have, where the plot shows it."""
    base = next((point for point in points if point.family == UNDEFENDED), None)
    if base is None or base.accuracy - max_drop < scales.x.low:
        return None
    return scales.place(base.accuracy - max_drop, scales.y.low)[0]


def _floor_words(floors: tuple[float, float] | None) -> str:
    if floors is None:
        return ""
    ends = list(dict.fromkeys(format_number(end, 2) for end in floors))
    return f"best floor, {' to '.join(ends)} dB"


def _words(point: Point) -> str:
    subset = f", n = {point.n:,} of {point.total:,}" if point.partial else ""
    return f"{point.label}: accuracy {format_number(point.accuracy, 3)}, {format_number(point.psnr, 2)} dB{subset}"


def _steps(best: Sequence[Position]) -> str:
    """Return the line of the least leak at each accuracy or more, from left to right."""
    if not best:
        return ""
    path = f"M{LEFT:.1f},{best[0][1]:.1f}"
    for x, y in best:
        path += f"V{y:.1f}H{x:.1f}"
    return f"{path}V{TOP:.1f}"
