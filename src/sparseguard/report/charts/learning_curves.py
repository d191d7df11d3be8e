"""Curves of training and of searches as small pictures, one a defense, on a common scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sparseguard.record import Record
from sparseguard.report.analysis.grouping import cells
from sparseguard.report.charts.axis import Axis, linear, logarithmic

COLOURS = 6
LEFT, RIGHT, TOP, BOTTOM = 52.0, 270.0, 26.0, 150.0
WIDTH, HEIGHT = 282, 184

Curves = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Trace:
    """A line: its points as SVG wants them, its last point, and which style it has."""

    label: str
    points: str
    end: tuple[float, float]
    style: int


@dataclass(frozen=True)
class Panel:
    """One defense's lines."""

    title: str
    traces: tuple[Trace, ...]


@dataclass(frozen=True)
class CurveChart:
    """Panels with a common scale; ticks are positions and words, the legend labels and styles."""

    heading: str
    meaning: str
    x_words: str
    y_words: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, int], ...]


def curve_charts(section: Sequence[Record]) -> list[CurveChart]:
    """Return the charts for which there are curves: attackers' learning, searches' misfit, the targets' training."""
    charts = (
        _chart(
            section,
            _decoders,
            "How the attackers learned",
            "Each line is an attacker; its PSNR on images kept apart for choosing, after every epoch. A line that "
            "still rises at its end says that longer training might find more.",
            ("epochs", "PSNR on auxiliary_val, dB"),
        ),
        _chart(
            section,
            _searches,
            "How searches came to fit what leaked",
            "A search changes an image until the model gives away the same for it. Each line is the distance "
            "of its features from those that leaked (mean square, relative to their spread), by part.",
            ("steps", "misfit, logarithmic"),
            log=True,
        ),
        _chart(
            section,
            lambda record: {"target": record.target.history.held_out_accuracy if record.target else []},
            "How the defended models learned",
            "Accuracy on private images kept apart from training, after every epoch.",
            ("epochs", "accuracy"),
        ),
    )
    return [chart for chart in charts if chart]


def _decoders(record: Record) -> Curves:
    return {attack.name: attack.curves.auxiliary_val_psnr for attack in record.attacks}


def _searches(record: Record) -> Curves:
    return {
        f"{attack.name}, {split}": curve
        for attack in record.attacks
        for split, curve in attack.curves.feature_loss.items()
    }


def _chart(
    section: Sequence[Record],
    curves_of: Callable[[Record], Curves],
    heading: str,
    meaning: str,
    axes: tuple[str, str],
    log: bool = False,
) -> CurveChart | None:
    def fits(value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not log)

    found: dict[str, list[tuple[str, list[tuple[int, float]]]]] = {}
    for cell in cells(section):
        for record in cell:
            for label, curve in curves_of(record).items():
                points = [(at, value) for at, value in enumerate(curve) if fits(value)]
                if points:
                    found.setdefault(record.case.defense, []).append((label, points))
    points = [point for lines in found.values() for _, line in lines for point in line]
    if not points:
        return None
    across = linear([at for at, _ in points], zero=True)
    up = (logarithmic if log else linear)([value for _, value in points])
    styles = {label: at for at, label in enumerate(dict.fromkeys(label for one in found.values() for label, _ in one))}
    panels = tuple(
        Panel(defense, tuple(_trace(label, line, across, up, styles[label]) for label, line in lines))
        for defense, lines in found.items()
    )
    return CurveChart(
        heading=heading,
        meaning=meaning,
        x_words=axes[0],
        y_words=axes[1],
        x_ticks=tuple((_x(at, across), words) for at, words in across.ticks if float(at).is_integer()),
        y_ticks=tuple((_y(at, up), words) for at, words in up.ticks),
        panels=panels,
        legend=tuple(styles.items()),
    )


def _trace(label: str, line: Sequence[tuple[int, float]], across: Axis, up: Axis, style: int) -> Trace:
    places = [(_x(at, across), _y(value, up)) for at, value in line]
    return Trace(label, " ".join(f"{x:.1f},{y:.1f}" for x, y in places), places[-1], style)


def _x(value: float, axis: Axis) -> float:
    return LEFT + (RIGHT - LEFT) * axis.share(value)


def _y(value: float, axis: Axis) -> float:
    return BOTTOM - (BOTTOM - TOP) * axis.share(value)
