"""No defense."""

from __future__ import annotations

from typing import ClassVar

from sparseguard.defenses.base import Defense
from sparseguard.settings import settings


@settings
class NoDefense(Defense):
    """The undefended model, which every defense is compared with."""

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "the undefended model"
    source: ClassVar[str] = "paper, section 4 (No-Defense)"
