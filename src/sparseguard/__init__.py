"""How much of the private images can an attacker get back from what a model gives away?

`sparseguard.load_recipe` and `sparseguard.run` do what the command line does; `sparseguard.audit` attacks a model of
yours and `sparseguard.verdict` says in words what came of it; `sparseguard.protect` puts a sparse front into it;
`sparseguard.sparse.SparseCode2d` is the sparse-coding layer alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparseguard.model_audit.runner import audit
    from sparseguard.pipeline import Outcome, Recipe, load_recipe, parse_recipe, run
    from sparseguard.protection import protect
    from sparseguard.record import Record, read_records
    from sparseguard.report.verdict import verdict
    from sparseguard.types import ImageSet

_HOMES = {
    "ImageSet": "sparseguard.types",
    "Outcome": "sparseguard.pipeline",
    "Recipe": "sparseguard.pipeline",
    "load_recipe": "sparseguard.pipeline",
    "parse_recipe": "sparseguard.pipeline",
    "run": "sparseguard.pipeline",
    "audit": "sparseguard.model_audit.runner",
    "protect": "sparseguard.protection",
    "Record": "sparseguard.record",
    "read_records": "sparseguard.record",
    "verdict": "sparseguard.report.verdict",
}

__all__ = [
    "ImageSet", "Outcome", "Recipe", "Record", "audit", "load_recipe", "parse_recipe", "protect", "read_records",
    "run", "verdict",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `import sparseguard` costs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sparseguard' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
