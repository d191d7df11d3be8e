"""Text of a record: an object's fields on lines of their own, arrays of scalars and short objects on one line."""

from __future__ import annotations

import json
from typing import Any

from sparseguard.record.schema import Record

WIDTH, LEAF_WIDTH = 240, 480
"""Most letters of an object that is written on one line: one that holds further objects, and one that does not."""


def record_text(record: Record) -> str:
    """Return a record as JSON, without fields that have their defaults: some hundred readable lines.

    Raises:
        ValueError: when a value is not finite.
    """
    return (
        format_json({"schema_version": record.schema_version, **record.model_dump(mode="json", exclude_defaults=True)})
        + "\n"
    )


def format_json(value: Any, indent: int = 0) -> str:
    """Return a plain value as JSON.

    Example:
        >>> print(format_json({"name": "ridge", "indices": [0, 1, 2], "scores": {"psnr": 20.5, "n": 3}}))
        {
         "name": "ridge",
         "indices": [0, 1, 2],
         "scores": {"psnr": 20.5, "n": 3}
        }
    """
    line = json.dumps(value, allow_nan=False)
    if _flat(value) or (indent > 0 and len(line) <= (LEAF_WIDTH if _leaf(value) else WIDTH)):
        return line
    inner, outer = " " * (indent + 1), " " * indent
    if isinstance(value, list):
        entries = [format_json(entry, indent + 1) for entry in value]
        return "[\n" + ",\n".join(f"{inner}{entry}" for entry in entries) + f"\n{outer}]"
    entries = [f"{json.dumps(name)}: {format_json(entry, indent + 1)}" for name, entry in value.items()]
    return "{\n" + ",\n".join(f"{inner}{entry}" for entry in entries) + f"\n{outer}}}"


def _flat(value: Any) -> bool:
    """Return whether a value is a scalar or an array of scalars."""
    entries = value if isinstance(value, list) else [value]
    return not any(isinstance(entry, (dict, list)) for entry in entries)


def _leaf(value: Any) -> bool:
    return isinstance(value, dict) and all(_flat(entry) for entry in value.values())
