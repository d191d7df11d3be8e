"""How much of the private images can an attacker reconstruct from what a model releases?

Example:
    >>> import sparseguard as sg
    >>> sg.load_recipe("demo").name
    'demo'

- `audit` attacks a model of yours, `verdict` puts the result in words, `reconstruct` runs one attack.
- `protect` puts a sparse front into it; `sparseguard.sparse` has the sparse-coding layers alone.
- `load_recipe`, `parse_recipe` and `run` do what the command line does; `read_records` and `load_target` read a run.
- `ATTACKS`, `DEFENSES`, `DATASETS` ... list the components; `Attack`, `Defense`, `DataSet` ... are their base classes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparseguard import sparse
    from sparseguard.attacks import ATTACKS, CLASS_ATTACKS, Attack, ClassAttack
    from sparseguard.bounds import BOUNDS
    from sparseguard.checks import CHECKS, Check
    from sparseguard.core.config import settings
    from sparseguard.core.errors import SparseguardError
    from sparseguard.data import DATASETS, DataSet
    from sparseguard.defenses import DEFENSES, Defense
    from sparseguard.metrics import METRICS, Metric
    from sparseguard.model_audit import Audit, Reconstruction, audit, reconstruct
    from sparseguard.pipeline import Outcome, Recipe, load_recipe, load_target, parse_recipe, run
    from sparseguard.protection import Protected, protect
    from sparseguard.record import Record, Records, read_pictures, read_records
    from sparseguard.report import verdict
    from sparseguard.targets import BACKBONES, Backbone
    from sparseguard.types import ImageSet

__all__ = [
    "ATTACKS",
    "BACKBONES",
    "BOUNDS",
    "CHECKS",
    "CLASS_ATTACKS",
    "DATASETS",
    "DEFENSES",
    "METRICS",
    "Attack",
    "Audit",
    "Backbone",
    "Check",
    "ClassAttack",
    "DataSet",
    "Defense",
    "ImageSet",
    "Metric",
    "Outcome",
    "Protected",
    "Recipe",
    "Reconstruction",
    "Record",
    "Records",
    "SparseguardError",
    "__version__",
    "audit",
    "load_recipe",
    "load_target",
    "parse_recipe",
    "protect",
    "read_pictures",
    "read_records",
    "reconstruct",
    "run",
    "settings",
    "sparse",
    "verdict",
]
__version__ = "0.1.0"

_MODULES = {
    "attacks": ("ATTACKS", "CLASS_ATTACKS", "Attack", "ClassAttack"),
    "bounds": ("BOUNDS",),
    "checks": ("CHECKS", "Check"),
    "core.config": ("settings",),
    "core.errors": ("SparseguardError",),
    "data": ("DATASETS", "DataSet"),
    "defenses": ("DEFENSES", "Defense"),
    "metrics": ("METRICS", "Metric"),
    "model_audit": ("Audit", "Reconstruction", "audit", "reconstruct"),
    "pipeline": ("Outcome", "Recipe", "load_recipe", "load_target", "parse_recipe", "run"),
    "protection": ("Protected", "protect"),
    "record": ("Record", "Records", "read_pictures", "read_records"),
    "report": ("verdict",),
    "targets": ("BACKBONES", "Backbone"),
    "types": ("ImageSet",),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import sparseguard` does not import torch."""
    if name == "sparse":
        return import_module(f"{__name__}.sparse")
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
