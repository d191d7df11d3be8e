"""The values that cross the walls between rooms. Frozen; shape, dtype and range are checked once, here."""

from __future__ import annotations

from sparseguard.types.attacks import FLOORS, Attacked, AttackResult, Goal, Knowledge, Observation, Released
from sparseguard.types.class_attacks import Classes, ClassResult
from sparseguard.types.datasets import AuxiliaryData, Images, ImageSet, Labels, Splits, as_unit_float
from sparseguard.types.training import Moment, Phase, Step

__all__ = [
    "FLOORS",
    "AttackResult",
    "Attacked",
    "ClassResult",
    "Classes",
    "Goal",
    "ImageSet",
    "Images",
    "Knowledge",
    "Labels",
    "Moment",
    "Observation",
    "Phase",
    "AuxiliaryData",
    "Released",
    "Splits",
    "Step",
    "as_unit_float",
]
