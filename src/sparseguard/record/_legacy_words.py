"""Words of records before version 5, and the present ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Plain = dict[str, Any]

BOUNDS = {"waterfall": "layer-wise reconstruction"}
_WORDS = {
    "attacker_train": "auxiliary",
    "attacker_val": "auxiliary_val",
    "select": "tuning",
    "outputs": "black-box",
    "+spec": "gray-box",
    "+weights": "white-box",
}
_ATTACKS = {"nearest-public": "nearest-neighbor"}
_IN_TEXT = re.compile(
    r"\battacker_train\b|attacker_val|(?<=\b(?:in|of) )select\b|\boutputs$|\+spec$|\+weights$|\bnearest-public\b"
)
_CONDITIONS = {"repeats": "queries", "share": "auxiliary_fraction", "data": "dataset", "images": "max_images"}
_HYPERPARAMETERS: Mapping[str, Mapping[str, str]] = {
    "gradient-inversion": {"prior": "prior_weight"},
    "local-ridge": {"neighbours": "neighbors"},
    "prior-inversion": {"anchor": "proximal_weight", "shares": "fractions"},
}
_FIGURES = {"neighbours": "neighbors"}
_RECOGNIZED = "recognized by "


def rename_split(old: str) -> str:
    """Return the present name of a split or of knowledge."""
    return _WORDS.get(old, old)


def rename_figures(figures: Mapping[str, Any]) -> Plain:
    """Return figures or curves by name, with present words in their names."""
    return {_FIGURES.get(name, text(name)): value for name, value in figures.items()}


def label(old: str) -> str:
    """Return the present label of an attack that is called as its component."""
    return _ATTACKS.get(old, old)


def text(old: str) -> str:
    """Return a text with present names in it."""
    return _IN_TEXT.sub(lambda match: (_WORDS | _ATTACKS)[match[0]], old)


def metric(old: str) -> str:
    """Return the present name of a metric."""
    return f"evaluator accuracy ({old.removeprefix(_RECOGNIZED)})" if old.startswith(_RECOGNIZED) else old


def by_split(values: Mapping[str, Any]) -> Plain:
    """Return values by the present names of splits."""
    return {rename_split(split): value for split, value in values.items()}


def by_label(values: Mapping[str, Any]) -> Plain:
    """Return values by the present labels of attacks."""
    return {label(name): value for name, value in values.items()}


def component(plain: Mapping[str, Any], name: str = "") -> Plain:
    """Return name and hyperparameters of a component's flat values; ``name`` is that of one that has none."""
    own = plain.get("name", name)
    renamed = _HYPERPARAMETERS.get(own, {})
    hyperparameters = {
        renamed.get(key, rename_split(key)): value for key, value in plain.items() if key not in ("name", "setting")
    }
    return {"name": label(own), "hyperparameters": hyperparameters}


def labeled_component(plain: Mapping[str, Any]) -> Plain:
    """Return label, name and hyperparameters of a component's flat values."""
    unlabeled = {key: value for key, value in plain.items() if key != "label"}
    return {"label": label(plain["label"]), **component(unlabeled)}


def conditions(setting: Mapping[str, Any]) -> Plain:
    """Return the conditions of an attack."""
    return {_CONDITIONS.get(name, name): value for name, value in setting.items()}
