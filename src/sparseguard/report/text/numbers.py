"""Number formats that every form of the report shares."""

from __future__ import annotations

from sparseguard.report.analysis.aggregate import SeedMean

MISSING = "not available"


def format_number(value: float | None, digits: int | None, missing: str = MISSING) -> str:
    """Return a number with fixed digits (None: four significant ones), or the words for a missing one.

    Example:
        >>> format_number(12.345, 1), format_number(1234.56, None), format_number(None, 1)
        ('12.3', '1235', 'not available')
    """
    if value is None:
        return missing
    return f"{value:.4g}" if digits is None else f"{value:.{digits}f}"


def format_mean(value: SeedMean | None, digits: int | None, separator: str = " ± ", missing: str = MISSING) -> str:
    """Return a mean, and the standard deviation where there is one."""
    if value is None:
        return missing
    return format_number(value.mean, digits) + (
        "" if value.std is None else f"{separator}{format_number(value.std, digits)}"
    )


def format_signed(value: float | None, digits: int | None) -> str:
    """Return a difference with its sign.

    Example:
        >>> format_signed(1.0, 2), format_signed(-0.001, 2)
        ('+1.00', '+0.00')
    """
    if value is None:
        return MISSING
    return f"{value + 0.0:+.4g}" if digits is None else f"{round(value, digits) + 0.0:+.{digits}f}"


def format_interval(ends: tuple[float, float] | None, digits: int | None, signed: bool = False) -> str:
    """Return an interval in square brackets, nothing where there is none.

    Example:
        >>> format_interval((1.0, 2.5), 1), format_interval((-1.0, 2.5), 1, signed=True), format_interval(None, 1)
        ('[1.0, 2.5]', '[-1.0, +2.5]', '')
    """
    if ends is None:
        return ""
    words = [format_signed(end, digits) if signed else format_number(end, digits) for end in ends]
    return f"[{', '.join(words)}]"


def format_chance(size: int) -> str:
    """Return the chance of id@1 among ``size`` images, to two significant digits.

    Example:
        >>> format_chance(2000)
        '0.0005'
    """
    return f"{1 / size:.2g}" if size > 0 else MISSING
