"""Prepares docstrings for the reference: examples as code, our labels in bold, settings with their types.

griffe calls it (`extensions` in mkdocs.yml).
"""

from __future__ import annotations

import re
from typing import Any

import griffe

LABELS = ("Source", "Differs", "Limits", "Released code")


class Docstrings(griffe.Extension):
    """Rewrite the docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is None:
            return
        text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
        for label in LABELS:
            text = re.sub(rf"^{label}: ", f"**{label}:** ", text, flags=re.M)
        obj.docstring.value = text

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Say the type of every field under `Args:`, which only dataclasses known to griffe have."""
        if cls.docstring is None:
            return
        for name, member in cls.members.items():
            annotation = member.annotation if member.is_attribute else None
            if annotation is not None:
                typed = f"    {name} ({annotation}): "
                cls.docstring.value = re.sub(
                    rf"^    {re.escape(name)}: ", typed.replace("\\", "\\\\"), cls.docstring.value, flags=re.M
                )
