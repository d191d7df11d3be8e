"""Labels and formats of figures that bounds and defenses compute, by the figure's name."""

from __future__ import annotations

from sparseguard.report.analysis.aggregate import SeedMean


def label_figure(name: str) -> str:
    """Return a figure's name in words.

    Example:
        >>> label_figure("null_from_mean_psnr"), label_figure("mse_error")
        ('null from mean', 'mse error')
    """
    words = name.removesuffix("_psnr").removesuffix("_rise").replace("_", " ")
    return f"{words} rise" if name.endswith("_rise") else words


def format_figure(name: str, value: SeedMean) -> str:
    """Return a figure in the format of its name, with the standard deviation over seeds where there are several.

    Example:
        >>> format_figure("null_from_mean_psnr", SeedMean(12.345, 0.1)), format_figure("rank", SeedMean(300.0, None))
        ('12.35 ± 0.10 dB', '300')
    """
    decibels = name.endswith(("_psnr", "_rise")) or name == "psnr"

    def plain(number: float) -> str:
        if decibels:
            return f"{number:.2f}"
        return f"{number:,.0f}" if float(number).is_integer() and abs(number) < 1e15 else f"{number:.4g}"

    words = plain(value.mean) + (f" ± {plain(value.std)}" if value.std is not None else "")
    return f"{words} dB" if decibels else words
