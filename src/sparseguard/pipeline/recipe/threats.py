"""Threat models: the tap that the attacker sees, and the goal of the attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Goal = Literal["feature-inversion", "class-inversion"]


@dataclass(frozen=True, kw_only=True)
class ThreatModel:
    """Defaults of a threat.

    Args:
        tap: layer whose output the attacker sees.
        backbone: name of the undefended model, unless a recipe names another.
        goal: ``feature-inversion`` reconstructs single images, ``class-inversion`` makes images of a class.
    """

    tap: str
    backbone: str
    goal: Goal


THREATS = {
    "end-to-end": ThreatModel(tap="last_hidden", backbone="linear", goal="feature-inversion"),
    "split": ThreatModel(tap="first_linear", backbone="linear-shallow", goal="feature-inversion"),
    "plug-and-play": ThreatModel(tap="logits", backbone="linear", goal="class-inversion"),
}
"""The paper's threat models (section 2)."""
