"""What a perfect attacker could know: bounds as tables, and the waterfall as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import Bound, LayerBound, Record
from sparseguard.report.analysis.aggregate import Spread, spread
from sparseguard.report.analysis.grouping import cells
from sparseguard.report.charts.axis import linear

UNLIMITED = 99.9
"""From here on a PSNR, which is capped at 100 dB, means the image itself."""

LABEL_WIDTH, BAR_WIDTH, ROW_HEIGHT = 220.0, 400.0, 24.0


@dataclass(frozen=True)
class BoundRow:
    """A bound of one defense: its figures in words, or why there are none."""

    name: str
    meaning: str
    figures: tuple[tuple[str, str], ...]
    reason: str | None
    n: int


@dataclass(frozen=True)
class WallBar:
    """A wall of the waterfall; ``mark`` is where its corrected level's tick stands."""

    top: float
    wall: str
    width: float
    mark: float | None
    words: str


@dataclass(frozen=True)
class Waterfall:
    """The bars of one defense, from the image to the tap."""

    height: float
    ticks: tuple[tuple[float, str], ...]
    bars: tuple[WallBar, ...]


@dataclass(frozen=True)
class BoundTable:
    """The bounds of one defense."""

    defense: str
    seeds: int
    rows: tuple[BoundRow, ...]
    waterfall: Waterfall | None


def bound_tables(section: Sequence[Record]) -> list[BoundTable]:
    """Return the bounds of every defense that has some; figures of several seeds are averaged."""
    tables = []
    highest = [layer.psnr for record in section for one in record.bounds for layer in one.layers]
    most = max((psnr for psnr in highest if psnr < UNLIMITED), default=1.0)
    for cell in cells(section):
        own = [record for record in cell if record.bounds]
        if own:
            walls = next((one for one in own[0].bounds if one.layers), None)
            tables.append(
                BoundTable(
                    cell[0].case.defense,
                    len(own),
                    tuple(_row([_like(record, at, own[0]) for record in own]) for at in range(len(own[0].bounds))),
                    _waterfall(walls.layers, most) if walls else None,
                )
            )
    return tables


def _like(record: Record, at: int, first: Record) -> Bound | None:
    """Return the bound at a place, if it is the same there as in the first record."""
    same = at < len(record.bounds) and _name(record.bounds[at]) == _name(first.bounds[at])
    return record.bounds[at] if same else None


def _row(seeds: Sequence[Bound | None]) -> BoundRow:
    known = [one for one in seeds if one]
    first = next((one for one in known if one.values or one.layers), known[0])
    figures = []
    for key in first.values:
        values = spread(one.values[key] for one in known if key in one.values)
        if values:
            figures.append((key_words(key), figure(key, values)))
    return BoundRow(_name(first), first.meaning, tuple(figures), first.reason, first.n)


def key_words(key: str) -> str:
    """Return a figure's name in words.

    Example:
        >>> key_words("null_from_mean_psnr"), key_words("mse_error")
        ('null from mean', 'mse error')
    """
    return key.removesuffix("_psnr").removesuffix("_rise").replace("_", " ") + (
        " rise" if key.endswith("_rise") else ""
    )


def figure(key: str, value: Spread) -> str:
    """Return a figure as its key wants it, with the standard deviation over seeds where there are several.

    Example:
        >>> figure("null_from_mean_psnr", Spread(12.345, 0.1)), figure("rank", Spread(300.0, None))
        ('12.35 ± 0.10 dB', '300')
    """
    decibels = key.endswith(("_psnr", "_rise")) or key == "psnr"

    def plain(number: float) -> str:
        if decibels:
            return f"{number:.2f}"
        return f"{number:,.0f}" if float(number).is_integer() and abs(number) < 1e15 else f"{number:.4g}"

    words = plain(value.mean) + (f" ± {plain(value.std)}" if value.std is not None else "")
    return f"{words} dB" if decibels else words


def _name(bound: Bound) -> str:
    return f"{bound.name} ({bound.layer})" if bound.layer else bound.name


def _waterfall(layers: Sequence[LayerBound], most: float) -> Waterfall:
    axis = linear([most], zero=True)

    def across(psnr: float) -> float:
        return BAR_WIDTH * min(max(axis.share(psnr), 0.0), 1.0)

    bars = []
    for at, layer in enumerate(layers):
        wall, psnr, corrected, rise = layer.layer, layer.psnr, layer.corrected_psnr, layer.rise
        words = "exact" if psnr >= UNLIMITED else f"{psnr:.2f} dB"
        higher = corrected > psnr + 0.005
        words += f", at least {corrected:.2f} dB as a later wall shows" if higher else ""
        words += f", rises by {rise:.2f} dB: attackers before it are too weak" if rise is not None else ""
        bars.append(WallBar(ROW_HEIGHT * at + 22, wall, across(psnr), across(corrected) if higher else None, words))
    ticks = tuple((across(at), words) for at, words in axis.ticks)
    return Waterfall(ROW_HEIGHT * len(bars) + 28, ticks, tuple(bars))
