"""Curves of attacks, searches and targets on common axes."""

import pytest

from sparseguard.record import Record
from sparseguard.report.charts.learning_curves import draw_curves
from support import full_records as full
from support import synthetic_records as made


def test_curves_share_their_axes():
    low, high = full.record(), full.record("sca")
    plain = high.model_dump()
    for attack in plain["outcome"]["attacks"]:
        if attack["curves"]["auxiliary_val_psnr"]:
            attack["curves"] = {"auxiliary_val_psnr": [5.0, float("nan"), 18.0]}
    learned, searched, trained = draw_curves([low, Record.model_validate(plain)])
    assert [panel.title for panel in learned.panels] == ["none", "sca"]
    assert [words for _, words in learned.y_ticks][:1] == ["5"]
    lines = [panel.traces[0] for panel in learned.panels]
    heights = [[float(point.split(",")[1]) for point in line.points.split()] for line in lines]
    assert heights[0][0] == pytest.approx(heights[1][-1])
    assert len(heights[1]) == 2
    assert [words for _, words in searched.y_ticks] == ["0.001", "0.01", "0.1"]
    assert [label for label, _ in searched.legend] == ["search, private", "search, test"]
    assert trained.legend == (("target", 0),)
    assert draw_curves([made.record()]) == []
