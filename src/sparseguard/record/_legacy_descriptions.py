"""Descriptions of the metrics and threats of records before version 5, which had none."""

from __future__ import annotations

from typing import Any

_DIGITS = {"PSNR": 2, "SSIM": 3, "attack accuracy": 3, "AUC": 3, "evaluator accuracy": 3, "LPIPS": 3}
_LOWER = ("LPIPS", "FD", "FID", "KID")
_LABELS = {"psnr": "PSNR", "ssim": "SSIM"}
_THREATS = {
    "end-to-end": "The attacker sees the output of the last hidden layer and wants each private image back.",
    "split": "The attacker sees the output of the first linear layer, as the server does in split inference, "
    "and wants each private image back.",
    "plug-and-play": "The attacker has the weights and searches a generator for images of each class.",
}
_TITLES = {"plug-and-play": "Plug & Play"}


def threat(name: str, tap: str, *, of_classes: bool) -> dict[str, Any]:
    """Return the description of a threat."""
    return {
        "goal": "class-inversion" if of_classes else "feature-inversion",
        "title": _TITLES.get(name, name),
        "sentence": _THREATS.get(
            name, f"The attacker sees what the model puts out at '{tap}' and wants each private image back."
        ),
    }


def image_metric(name: str) -> dict[str, Any]:
    """Return the description of a score of each image."""
    kind, network = _parts(name)
    label = _LABELS.get(kind, kind)
    return {
        "label": label,
        "unit": "dB" if label == "PSNR" else "",
        "digits": _DIGITS.get(label, 3),
        "direction": "lower" if label in _LOWER else "higher",
        "network": network,
    }


def set_metric(name: str) -> dict[str, Any]:
    """Return the description of a score of a set of images."""
    label, network = _parts(name)
    return {
        "label": label,
        "digits": None,
        "direction": "lower" if label in _LOWER else "higher",
        "network": network,
        "of_set": True,
    }


def class_metric(name: str, leaks: str) -> dict[str, Any]:
    """Return the description of a score of class inversion; ``leaks``: whether a higher value means more."""
    label, network = _parts(name)
    of_image = ("attack accuracy", "feature distance", "AUC", "PSNR", "SSIM")
    return {
        "label": label,
        "unit": "dB" if label.startswith("PSNR") else "",
        "digits": next((digits for start, digits in _DIGITS.items() if label.startswith(start)), None),
        "direction": "higher" if leaks == "more" else "lower",
        "network": network,
        "of_set": not label.startswith(of_image),
    }


def _parts(name: str) -> tuple[str, str | None]:
    kind, _, network = name.removesuffix(")").partition("(")
    return kind.strip(), network or None
