"""Jinja templates of the page: those of the page itself in ``html/templates``, those of sections in theirs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import jinja2

from sparseguard.report.analysis.names import SPLITS
from sparseguard.report.text.numbers import format_chance, format_interval, format_number, format_signed

PACKAGE = "sparseguard.report"
FOLDERS = ("html/templates", "sections/templates")


def render_html(template: str, **values: Any) -> str:
    """Return a template's text with values filled in and escaped.

    Args:
        template: the name of a file that ends in ``.j2``, or the template itself.
        values: its variables; besides them it has the filters ``number``, ``signed``, ``interval``, ``chance`` and
            ``flat``, and may import ``macros.html.j2``.
    """
    environment = _environment()
    source = environment.get_template(template) if template.endswith(".j2") else environment.from_string(template)
    return source.render(**values)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values as words, by their names joined with dots.

    Example:
        >>> flatten({"a": {"b": 1}, "c": 2})
        {'a.b': '1', 'c': '2'}
    """
    plain: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            plain |= flatten(value, f"{prefix}{name}.")
        else:
            plain[f"{prefix}{name}"] = str(value)
    return plain


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(PACKAGE, folder) for folder in FOLDERS]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=format_number, signed=format_signed, chance=format_chance, interval=format_interval, flat=flatten
    )
    environment.globals.update(splits=SPLITS)
    return environment
