"""Bars of layer-wise reconstruction: the PSNR that can be reached from every layer between image and tap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import LayerBound
from sparseguard.report.charts.axis import fit_linear_axis

UNLIMITED = 99.9
"""From here on a PSNR, which is capped at 100 dB, means the image itself."""
WIDTH, ROW_HEIGHT, TOP = 400.0, 24.0, 22.0


@dataclass(frozen=True)
class LayerBar:
    """A layer's bar; ``mark`` is the position of the tick of its corrected PSNR."""

    top: float
    layer: str
    width: float
    mark: float | None
    words: str


@dataclass(frozen=True)
class LayerChart:
    """The bars of one defense, from the image to the tap."""

    height: float
    ticks: tuple[tuple[float, str], ...]
    bars: tuple[LayerBar, ...]


def draw_layers(layers: Sequence[LayerBound], highest: float) -> LayerChart:
    """Return the bars of one defense.

    Args:
        layers: from the image to the tap.
        highest: the highest PSNR on the axis, the same for all defenses.
    """
    axis = fit_linear_axis([highest], zero=True)

    def x(psnr: float) -> float:
        return WIDTH * min(max(axis.fraction(psnr), 0.0), 1.0)

    bars = []
    for index, layer in enumerate(layers):
        words = "exact" if layer.psnr >= UNLIMITED else f"{layer.psnr:.2f} dB"
        higher = layer.corrected_psnr > layer.psnr + 0.005
        words += f", at least {layer.corrected_psnr:.2f} dB as a later layer shows" if higher else ""
        if layer.rise is not None:
            words += f", rises by {layer.rise:.2f} dB: attacks on earlier layers are too weak"
        mark = x(layer.corrected_psnr) if higher else None
        bars.append(LayerBar(ROW_HEIGHT * index + TOP, layer.layer, x(layer.psnr), mark, words))
    ticks = tuple((x(tick), words) for tick, words in axis.ticks)
    return LayerChart(ROW_HEIGHT * len(bars) + 28, ticks, tuple(bars))
