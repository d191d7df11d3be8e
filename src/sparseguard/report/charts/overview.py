"""The geometry of the overview chart: what leaks above the best floor, and the accuracy it goes with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.report.analysis.summary import Row
from sparseguard.report.charts.axis import linear
from sparseguard.report.text.wording import METRICS, MISSING, gain, number

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
    """A bar and the words beside it; ``mark`` is where the test part's tick stands."""

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
class Chart:
    """Everything the picture's template needs; ``ticks`` are positions and their words."""

    width: float
    height: float
    zero: float
    leak_ticks: tuple[tuple[float, str], ...]
    accuracy_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]


def draw(rows: Sequence[Row]) -> Chart:
    """Return the chart of a section's rows, in their order, with one scale for all of them."""
    leaks = [leak for row in rows for part in ("private", "test") if (leak := _leak(row, part)) is not None]
    axis = linear(leaks or [1.0], zero=True, least=1.0)

    def across(leak: float) -> float:
        return LABEL_WIDTH + LEAK_WIDTH * axis.share(leak)

    several = len({row.level for row in rows if row.level}) > 1
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
                    left=across(min(private or 0.0, 0.0)),
                    width=abs(across(private or 0.0) - across(0.0)),
                    words_left=max(across(private or 0.0), across(0.0), across(test or 0.0)) + 7,
                    words=_words(row, gain(private, METRICS["psnr"].digits)),
                    mark=None if test is None else across(test),
                ),
                accuracy=_accuracy(row),
            )
        )
    return Chart(
        width=WIDTH,
        height=TOP + ROW_HEIGHT * len(rows) + 12,
        zero=across(0.0),
        leak_ticks=tuple((across(tick), words) for tick, words in axis.ticks),
        accuracy_ticks=tuple((ACCURACY_LEFT + ACCURACY_WIDTH * tick, f"{tick:g}") for tick in (0.0, 0.5, 1.0)),
        lines=tuple(lines),
    )


def _label(row: Row, several: bool) -> str:
    attacked = row.partial.get("private")
    words = [row.level or "" if several else "", f"n = {attacked[0]}" if attacked else ""]
    told = ", ".join(word for word in words if word)
    return f"{row.defense} ({told})" if told else row.defense


def _leak(row: Row, part: str) -> float | None:
    measure = row.measures["psnr"].get(part)
    return measure.leak if measure and measure.leak is not None and math.isfinite(measure.leak) else None


def _words(row: Row, words: str) -> str:
    return "failed" if row.status == "failed" else words


def _accuracy(row: Row) -> Bar:
    mean = row.accuracy.mean if row.accuracy else None
    width = ACCURACY_WIDTH * min(max(mean or 0.0, 0.0), 1.0)
    words = number(mean, 3) if mean is not None else _words(row, MISSING)
    return Bar(left=ACCURACY_LEFT, width=width, words_left=ACCURACY_LEFT + width + 7, words=words)
