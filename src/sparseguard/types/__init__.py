"""The values that cross the walls between rooms. Frozen; shape, dtype and range are checked once, here."""

from __future__ import annotations

from sparseguard.types.attacks import FLOORS, AttackInput, AttackInputs, AttackResult, Knowledge, Observation, Released
from sparseguard.types.class_attacks import ClassResult, TargetClasses
from sparseguard.types.datasets import AuxiliaryData, Images, ImageSet, Labels, Splits, as_unit_float
from sparseguard.types.training import BatchContext, EpochContext, Phase

__all__ = [
    "FLOORS",
    "AttackInput",
    "AttackInputs",
    "AttackResult",
    "AuxiliaryData",
    "BatchContext",
    "ClassResult",
    "EpochContext",
    "ImageSet",
    "Images",
    "Knowledge",
    "Labels",
    "Observation",
    "Phase",
    "Released",
    "Splits",
    "TargetClasses",
    "as_unit_float",
]
