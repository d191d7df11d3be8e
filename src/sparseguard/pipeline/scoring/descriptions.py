"""Descriptions of the metrics of an outcome, for records and reports."""

from __future__ import annotations

from collections.abc import Iterable

from sparseguard.metrics import METRICS
from sparseguard.record import MetricDescription

_LOWER_SETS = ("FD", "FID", "KID")


def describe_image_metrics(names: Iterable[str]) -> dict[str, MetricDescription]:
    """Return the descriptions of metrics of each image."""
    return {name: _image_metric(name) for name in dict.fromkeys(names)}


def describe_set_metrics(names: Iterable[str]) -> dict[str, MetricDescription]:
    """Return the descriptions of metrics of whole sets, such as ``FD(fashion-net)``."""
    return {name: _set_metric(name) for name in dict.fromkeys(names)}


def describe_class_metric(name: str) -> MetricDescription:
    """Return the description of a metric of class inversion, such as ``feature distance (pooling)``."""
    label, network = split_name(name)
    digits = 2 if label.startswith("PSNR") else 3
    if label.startswith("feature distance"):
        return MetricDescription(label=label, digits=None, direction="lower", network=network)
    unit = "dB" if label.startswith("PSNR") else ""
    return MetricDescription(label=label, unit=unit, digits=digits, direction="higher", network=network)


def split_name(name: str) -> tuple[str, str | None]:
    """Return what a metric measures, and the network that computes it.

    Example:
        >>> split_name("feature distance (pooling)"), split_name("FID")
        (('feature distance', 'pooling'), ('FID', None))
    """
    label, _, network = name.removesuffix(")").partition("(")
    return label.strip(), network or None


def _image_metric(name: str) -> MetricDescription:
    if name in METRICS:
        metric = METRICS[name]
        return MetricDescription(label=metric.label, unit=metric.unit, digits=metric.digits, direction=metric.direction)
    label, network = split_name(name)
    direction = "lower" if label == "LPIPS" else "higher"
    return MetricDescription.model_validate({"label": label, "digits": 3, "direction": direction, "network": network})


def _set_metric(name: str) -> MetricDescription:
    label, network = split_name(name)
    direction = "lower" if label in _LOWER_SETS else "higher"
    return MetricDescription.model_validate(
        {"label": label, "direction": direction, "network": network, "of_set": True}
    )
