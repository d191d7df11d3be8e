"""The record of one case: what was run, what was measured, and which checks raised a flag. Needs no torch."""

from __future__ import annotations

from sparseguard.record.class_schema import ClassAttacker, ClassFacts, ClassGoal, ClassScore, PriorFacts
from sparseguard.record.io import read_pictures, read_record, read_records
from sparseguard.record.schema import (
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
