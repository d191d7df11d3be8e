"""Names that reports treat in a special way: splits, the undefended target, control defenses."""

from __future__ import annotations

SPLITS = ("private", "test")
"""Splits whose images are attacked and shown."""
UNDEFENDED = "none"
CONTROL_DEFENSES = ("standardize-only", "conv-control", "relu-threshold", "low-rank", "downsample")
"""Defenses to compare with: each has one property of another defense without the rest of it."""
AUDIT_LAYOUT = "audit"
"""The layout of audits, whose targets come trained."""
