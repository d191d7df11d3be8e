"""The record of one case: what was run, what was measured, and which checks raised a flag. Needs no torch."""

from __future__ import annotations

from sparseguard.class_record import ClassAttacker, ClassFacts, ClassGoal, ClassScore, PriorFacts
from sparseguard.record.model import (
    SCHEMA_VERSION,
    Attacker,
    Bound,
    Case,
    Claim,
    Comparison,
    Failure,
    Flag,
    Leaked,
    Pictures,
    Record,
    SetScore,
    Summary,
    TargetFacts,
    schema,
)
from sparseguard.record.reading import read_pictures, read_record, read_records

__all__ = [
    "SCHEMA_VERSION",
    "Attacker",
    "Bound",
    "Case",
    "Claim",
    "ClassAttacker",
    "ClassFacts",
    "ClassGoal",
    "ClassScore",
    "Comparison",
    "Failure",
    "Flag",
    "Leaked",
    "Pictures",
    "PriorFacts",
    "Record",
    "SetScore",
    "Summary",
    "TargetFacts",
    "read_pictures",
    "read_record",
    "read_records",
    "schema",
]
