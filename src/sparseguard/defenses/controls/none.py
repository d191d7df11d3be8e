"""The undefended model."""

from __future__ import annotations

from typing import ClassVar, final

from sparseguard.core.config import settings
from sparseguard.defenses.base import Defense


@final
@settings
class NoDefense(Defense):
    """The undefended model, the reference for every defense.

    Source: paper, section 4 (No-Defense).

    Differs: nothing known.

    Limits: no protection. A deterministic tap as wide as the image is inverted nearly exactly.

    Released code: another architecture than for other defenses on the same data (gray images: dense layers applied to
    each row of the image; twice a softmax in front of the cross-entropy in 16 scripts, which lowers its accuracy).
    """

    revision: ClassVar[int] = 1
    summary: ClassVar[str] = "the undefended model"
    source: ClassVar[str] = "paper, section 4 (No-Defense)"
