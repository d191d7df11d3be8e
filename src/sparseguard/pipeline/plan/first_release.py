"""Words of the first release, in which keys are computed, so that run folders keep their targets and attacks.

The tables are frozen: a word that changes gets a line; a component or setting that is new gets none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPLITS = {"auxiliary": "attacker_train", "auxiliary_val": "attacker_val", "tuning": "select"}
ATTACKS = {"nearest-neighbor": "nearest-public"}
CONDITIONS = {
    "queries": "repeats",
    "auxiliary_fraction": "share",
    "dataset": "data",
    "max_images": "images",
}
HYPERPARAMETERS: Mapping[str, Mapping[str, str]] = {
    "gradient-inversion": {"prior_weight": "prior"},
    "local-ridge": {"neighbors": "neighbours"},
    "prior-inversion": {"proximal_weight": "anchor", "fractions": "shares"},
}
"""Of a component, by today's name: today's setting -> the first release's."""


def translate_fingerprints(fingerprints: Mapping[str, str]) -> dict[str, str]:
    """Return the fingerprints under the first release's names of splits."""
    return _rename(fingerprints, SPLITS)


def translate_conditions(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of an attack's conditions in the first release's words."""
    return _rename(conditions, CONDITIONS)


def translate_component(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component's name and settings in the first release's words."""
    name = described["name"]
    return {**_rename(described, HYPERPARAMETERS.get(name, {})), "name": ATTACKS.get(name, name)}


def translate_label(label: str) -> str:
    """Return an attack's label; where it is the attack's name, that of the first release."""
    return ATTACKS.get(label, label)


def _rename(values: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    return {words.get(key, key): value for key, value in values.items()}
