"""Geometry of the overview chart: the leak above the best floor, and the accuracy it goes with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.report.analysis.summary import Row
from sparseguard.report.charts.axis import fit_linear_axis
from sparseguard.report.text.numbers import MISSING, format_number, format_signed

LABEL_WIDTH = 220
LEAK_WIDTH = 330
ACCURACY_LEFT = 640
ACCURACY_WIDTH = 170
WIDTH = 880
TOP = 34
ROW_HEIGHT = 30
LABEL_LETTERS = 30


@dataclass(frozen=True)
class Bar:
    """A bar and the words beside it; ``mark`` is the position of the test split's tick."""

    left: float
    width: float
    words_left: float
    words: str
    mark: float | None = None


@dataclass(frozen=True)
class Line:
    """One defense's line of the chart."""

    top: float
    label: str
    full_label: str
    leak: Bar
    accuracy: Bar


@dataclass(frozen=True)
class OverviewChart:
    """Everything the picture's template needs; ticks are positions and their words."""

    width: float
    height: float
    zero: float
    leak_ticks: tuple[tuple[float, str], ...]
    accuracy_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]


def draw_overview(rows: Sequence[Row]) -> OverviewChart:
    """Return the chart of a comparison's rows, in their order, with one axis for all of them."""
    leaks = [leak for row in rows for split in ("private", "test") if (leak := _leak(row, split)) is not None]
    axis = fit_linear_axis(leaks or [1.0], zero=True, least=1.0)

    def x(leak: float) -> float:
        return LABEL_WIDTH + LEAK_WIDTH * axis.fraction(leak)

    several = len({row.adversary for row in rows if row.adversary}) > 1
    lines = []
    for index, row in enumerate(rows):
        label = _label(row, several)
        private, test = _leak(row, "private"), _leak(row, "test")
        lines.append(
            Line(
                top=TOP + ROW_HEIGHT * index,
                label=label if len(label) <= LABEL_LETTERS else f"{label[: LABEL_LETTERS - 1]}…",
                full_label=label,
                leak=Bar(
                    left=x(min(private or 0.0, 0.0)),
                    width=abs(x(private or 0.0) - x(0.0)),
                    words_left=max(x(private or 0.0), x(0.0), x(test or 0.0)) + 7,
                    words=_words(row, format_signed(private, 2)),
                    mark=None if test is None else x(test),
                ),
                accuracy=_accuracy(row),
            )
        )
    return OverviewChart(
        width=WIDTH,
        height=TOP + ROW_HEIGHT * len(rows) + 12,
        zero=x(0.0),
        leak_ticks=tuple((x(tick), words) for tick, words in axis.ticks),
        accuracy_ticks=tuple((ACCURACY_LEFT + ACCURACY_WIDTH * tick, f"{tick:g}") for tick in (0.0, 0.5, 1.0)),
        lines=tuple(lines),
    )


def _label(row: Row, several: bool) -> str:
    attacked = row.partial.get("private")
    words = [row.label if several and row.adversary else "", f"n = {attacked[0]}" if attacked else ""]
    details = ", ".join(word for word in words if word)
    return f"{row.defense} ({details})" if details else row.defense


def _leak(row: Row, split: str) -> float | None:
    measure = row.measures.get("psnr", {}).get(split)
    return measure.leak if measure and measure.leak is not None and math.isfinite(measure.leak) else None


def _words(row: Row, words: str) -> str:
    return "failed" if row.status == "failed" else words


def _accuracy(row: Row) -> Bar:
    mean = row.accuracy.mean if row.accuracy else None
    width = ACCURACY_WIDTH * min(max(mean or 0.0, 0.0), 1.0)
    words = format_number(mean, 3) if mean is not None else _words(row, MISSING)
    return Bar(left=ACCURACY_LEFT, width=width, words_left=ACCURACY_LEFT + width + 7, words=words)
