"""Catalog of everything that a recipe can name, as plain values."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from sparseguard.attacks import ATTACKS, CLASS_ATTACKS
from sparseguard.checks import CHECKS
from sparseguard.core.config import describe
from sparseguard.data import DATASETS
from sparseguard.defenses import DEFENSES
from sparseguard.generators import list_shipped_priors, read_card
from sparseguard.metrics import METRICS
from sparseguard.pipeline.recipe.loading import list_shipped_recipes
from sparseguard.pipeline.recipe.threats import THREATS
from sparseguard.targets import BACKBONES

Entry = dict[str, Any]


def collect_components() -> dict[str, list[Entry]]:
    """Return every table of the project: kind -> entries with name, summary and settings."""
    return {
        "data sets": _settings(DATASETS),
        "backbones": _settings(BACKBONES),
        "defenses": _settings(DEFENSES),
        "attacks": _settings(ATTACKS),
        "class inversion attacks": _settings(CLASS_ATTACKS),
        "priors": [
            _entry(name, f"trained on {read_card(path).trained_on}") for name, path in list_shipped_priors().items()
        ],
        "threats": [
            _entry(name, f"{threat.goal} at the tap {threat.tap}", {"tap": threat.tap, "backbone": threat.backbone})
            for name, threat in THREATS.items()
        ],
        "metrics": [_entry(name, metric.summary) for name, metric in METRICS.items()],
        "checks": [_entry(name, f"raised when {check.raised_when}") for name, check in CHECKS.items()],
        "recipes": [_entry(name, tomllib.loads(text)["description"]) for name, text in list_shipped_recipes().items()],
    }


def _settings(table: Mapping[str, Any]) -> list[Entry]:
    return [_entry(name, component.summary, describe(component())) for name, component in table.items()]


def _entry(name: str, summary: str, settings: dict[str, Any] | None = None) -> Entry:
    return {"name": name, "summary": summary, "settings": settings or {}}
