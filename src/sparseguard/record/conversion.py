"""Conversion of figures, curves and bounds by name, as attacks and bounds return them, to fields of a record."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

_RULE = "rule: "
_COSINE = "cosine unrolled, "
_FIGURES = {
    "cosine unrolled, implicit": "gradient_cosine_implicit",
    "cosine unrolled, straight-through": "gradient_cosine_straight_through",
    "lr": "learning_rate",
    "at_clamp": "clamped_fraction",
    "samples_far_from_public": "samples_far_from_auxiliary",
    "rero_bound": "reconstruction_bound",
}
_LOSSES = (" feature loss", " misfit")
_PSNR, _CORRECTED, _RISE = "_psnr", "_corrected_psnr", "_rise"


def figure_fields(figures: Mapping[str, float], fields: Collection[str]) -> dict[str, Any]:
    """Return figures by field; those that are no field are in ``extra``.

    Example:
        >>> figure_fields({"rule: implicit": 1.0, "penalty": 0.5, "depth": 2.0}, ["penalty", "gradient_rule"])
        {'gradient_rule': 'implicit', 'penalty': 0.5, 'extra': {'depth': 2.0}}
    """
    known: dict[str, Any] = {}
    extra: dict[str, float] = {}
    for name, value in figures.items():
        field = _FIGURES.get(name, name)
        if name.startswith(_RULE):
            known["gradient_rule"] = name.removeprefix(_RULE)
        elif field in fields:
            known[field] = value
        else:
            extra[name] = value
    return {**known, "extra": extra}


def curve_fields(curves: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return learning curves by field; those that are no field are in ``extra``.

    Example:
        >>> curve_fields({"auxiliary_val PSNR": [9.0, 12.0], "private misfit": [1.0]})
        {'auxiliary_val_psnr': [9.0, 12.0], 'feature_loss': {'private': [1.0]}, 'extra': {}}
    """
    losses = {
        name.removesuffix(ending): list(curve)
        for name, curve in curves.items()
        for ending in _LOSSES
        if name.endswith(ending)
    }
    psnr = "auxiliary_val PSNR"
    other = {name: list(curve) for name, curve in curves.items() if name != psnr and not name.endswith(_LOSSES)}
    return {"auxiliary_val_psnr": list(curves.get(psnr, ())), "feature_loss": losses, "extra": other}


def bound_fields(values: Mapping[str, float]) -> dict[str, Any]:
    """Return the values of a bound, with those of layers as a list of layers.

    Example:
        >>> bound_fields({"codes_psnr": 30.0, "codes_corrected_psnr": 31.0, "rank": 4.0})
        {'values': {'rank': 4.0}, 'layers': [{'layer': 'codes', 'psnr': 30.0, 'corrected_psnr': 31.0, 'rise': None}]}
    """
    corrected = {name.removesuffix(_CORRECTED) for name in values if name.endswith(_CORRECTED)}
    names = [name.removesuffix(_PSNR) for name in values if name.endswith(_PSNR)]
    names = [name for name in names if name in corrected]
    layers = [
        {
            "layer": name,
            "psnr": values[f"{name}{_PSNR}"],
            "corrected_psnr": values[f"{name}{_CORRECTED}"],
            "rise": values.get(f"{name}{_RISE}"),
        }
        for name in names
    ]
    own = {f"{name}{ending}" for name in names for ending in (_PSNR, _CORRECTED, _RISE)}
    return {"values": {name: value for name, value in values.items() if name not in own}, "layers": layers}
