"""The table of metrics: what each one brings, and that the page about metrics agrees."""

import re
from pathlib import Path

import pytest
import torch

from sparseguard.metrics import METRICS, Metric

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def rows():
    cells = (re.findall(r"[^|]+", line) for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `")
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in cells}


@pytest.mark.parametrize("name", METRICS.builtin)
def test_the_page_has_each_metrics_unit_and_direction(name):
    unit, _, direction, when = rows()[name]
    assert unit == METRICS[name].unit
    assert direction == f"{METRICS[name].direction}: more leaked"
    assert when == "always"


@pytest.mark.parametrize("name", METRICS.builtin)
def test_originals_leak_more_than_a_constant_by_every_metric(name):
    generator = torch.Generator().manual_seed(0)
    originals = torch.rand(6, 1, 16, 16, generator=generator)
    constant = torch.full_like(originals, 0.5)
    metric = METRICS[name]
    leaked, floor = (
        metric.leakage(float(metric.compute(images, originals, originals, torch.arange(6)).mean()))
        for images in (originals, constant)
    )
    assert leaked > floor


def test_a_metric_of_which_lower_leaks_more_is_turned_around():
    def error(preds, target, pool, pool_index):
        return (preds - target).square().flatten(1).mean(1)

    metric = Metric(compute=error, label="MSE", summary="mean squared error", direction="lower")
    assert metric.leakage(0.1) > metric.leakage(0.2)
    assert (metric.unit, metric.digits) == ("", 3)
