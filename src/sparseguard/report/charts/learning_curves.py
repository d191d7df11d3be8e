"""Curves of training and of searches as small pictures, one a defense, on a common axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sparseguard.record import FeatureInversionAttack, Record
from sparseguard.report.charts.axis import Axis, fit_linear_axis, fit_logarithmic_axis

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
    """Panels with common axes; ticks are positions and words, the legend labels and styles."""

    heading: str
    meaning: str
    x_words: str
    y_words: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, int], ...]


def draw_curves(records: Sequence[Record]) -> list[CurveChart]:
    """Return the charts that have curves: learning of attacks, feature loss of searches, training of targets."""
    charts = (
        _draw(
            records,
            _attack_curves(lambda attack: {attack.name: attack.curves.auxiliary_val_psnr}),
            "How the attacks learned",
            "Each line is an attack: its PSNR on images held out for its selection, after every epoch. A line that "
            "still rises at its end says that longer training might find more.",
            ("epochs", "PSNR on auxiliary_val, dB"),
        ),
        _draw(
            records,
            _attack_curves(_feature_loss),
            "How searches came to fit the features",
            "A search changes an image until the model has the same features for it. Each line is the feature loss: "
            "the mean squared difference from the observed features relative to their variance, by split.",
            ("steps", "feature loss, logarithmic"),
            log=True,
        ),
        _draw(
            records,
            lambda record: {"target": record.target.history.held_out_accuracy} if record.target else {},
            "How the defended models learned",
            "Accuracy on private images held out of training, after every epoch.",
            ("epochs", "accuracy"),
        ),
    )
    return [chart for chart in charts if chart]


def _feature_loss(attack: FeatureInversionAttack) -> Curves:
    return {f"{attack.name}, {split}": curve for split, curve in attack.curves.feature_loss.items()}


def _attack_curves(curves_of: Callable[[FeatureInversionAttack], Curves]) -> Callable[[Record], Curves]:
    def select(record: Record) -> Curves:
        return {label: curve for attack in record.attacks for label, curve in curves_of(attack).items()}

    return select


def _draw(
    records: Sequence[Record],
    curves_of: Callable[[Record], Curves],
    heading: str,
    meaning: str,
    axes: tuple[str, str],
    log: bool = False,
) -> CurveChart | None:
    def fits(value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not log)

    by_defense: dict[str, list[tuple[str, list[tuple[int, float]]]]] = {}
    for record in records:
        for label, curve in curves_of(record).items():
            points = [(index, value) for index, value in enumerate(curve) if fits(value)]
            if points:
                by_defense.setdefault(record.case.defense, []).append((label, points))
    points = [point for lines in by_defense.values() for _, line in lines for point in line]
    if not points:
        return None
    x_axis = fit_linear_axis([index for index, _ in points], zero=True)
    y_axis = (fit_logarithmic_axis if log else fit_linear_axis)([value for _, value in points])
    labels = dict.fromkeys(label for lines in by_defense.values() for label, _ in lines)
    styles = {label: rank for rank, label in enumerate(labels)}
    panels = tuple(
        Panel(defense, tuple(_trace(label, line, x_axis, y_axis, styles[label]) for label, line in lines))
        for defense, lines in by_defense.items()
    )
    return CurveChart(
        heading=heading,
        meaning=meaning,
        x_words=axes[0],
        y_words=axes[1],
        x_ticks=tuple((_x(tick, x_axis), words) for tick, words in x_axis.ticks if float(tick).is_integer()),
        y_ticks=tuple((_y(tick, y_axis), words) for tick, words in y_axis.ticks),
        panels=panels,
        legend=tuple(styles.items()),
    )


def _trace(label: str, line: Sequence[tuple[int, float]], x_axis: Axis, y_axis: Axis, style: int) -> Trace:
    points = [(_x(index, x_axis), _y(value, y_axis)) for index, value in line]
    return Trace(label, " ".join(f"{x:.1f},{y:.1f}" for x, y in points), points[-1], style)


def _x(value: float, axis: Axis) -> float:
    return LEFT + (RIGHT - LEFT) * axis.fraction(value)


def _y(value: float, axis: Axis) -> float:
    return BOTTOM - (BOTTOM - TOP) * axis.fraction(value)
