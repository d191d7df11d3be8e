"""The key of plain values."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(values: Any) -> str:
    """Return the key of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode()).hexdigest()
