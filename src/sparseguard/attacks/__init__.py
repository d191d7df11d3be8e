"""Attacks: floors, feature inversion and class inversion. An attack holds a `ModelAccess`, never the model."""

from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import (
    Attack,
    AttackContext,
    ClassAttack,
    ClassContext,
    NoPartialResults,
    NotApplicable,
    PartialResults,
)
from sparseguard.attacks.baselines import FLOOR_ATTACKS
from sparseguard.attacks.feature_inversion import FEATURE_ATTACKS
from sparseguard.attacks.model_inversion import MODEL_INVERSION_ATTACKS
from sparseguard.core.component_table import ComponentTable

ATTACKS: ComponentTable[type[Attack]] = ComponentTable(
    "sparseguard.attacks", Attack, {**FLOOR_ATTACKS, **FEATURE_ATTACKS}
)
"""Floors and feature inversions by name."""

CLASS_ATTACKS: ComponentTable[type[ClassAttack]] = ComponentTable(
    "sparseguard.class_attacks", ClassAttack, MODEL_INVERSION_ATTACKS
)
"""Class inversions by name."""

__all__ = [
    "ATTACKS",
    "CLASS_ATTACKS",
    "Attack",
    "AttackContext",
    "ClassAttack",
    "ClassContext",
    "ModelAccess",
    "NoPartialResults",
    "NotApplicable",
    "PartialResults",
]
