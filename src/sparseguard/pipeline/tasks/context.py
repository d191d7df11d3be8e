"""A released target as cases that share it see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparseguard.targets import Target
from sparseguard.types import Released


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A released target, what it is asked through, and what was noted while it was trained."""

    key: str
    target: Target
    model: Released
    facts: Mapping[str, Any]
