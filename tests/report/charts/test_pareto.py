"""The Pareto plot: positions of markers, labels, floors and the accuracy that may be lost."""

from collections import Counter

import numpy as np
import pytest

from sparseguard.report.charts.label_placement import LETTER, LINE, compute_overlaps
from sparseguard.report.charts.pareto import BOTTOM, EDGE, LEFT, MAX_LABELS, RIGHT, TOP, draw_pareto
from support import many_defenses as many
from support.report_forms import pareto


def one(records):
    (found,) = pareto(records)
    return found


def test_everything_is_drawn_where_its_values_are():
    records = [many.record(), many.record("sca", "sca 1", lost=30, shift=-4.0), many.record("low-rank", lost=60)]
    chart = draw_pareto(one(records), 0.05)
    places = {marker.words.split(":")[0]: (marker.x, marker.y) for marker in chart.markers}
    across = (places["none"][0] - places["low-rank"][0]) / 0.2
    up = (places["sca 1"][1] - places["none"][1]) / 4.0
    assert places["sca 1"][0] - places["low-rank"][0] == pytest.approx(0.1 * across)
    assert places["low-rank"][1] == pytest.approx(places["none"][1])
    assert chart.floor - places["sca 1"][1] == pytest.approx(4.0 * up)
    assert places["none"][0] - chart.limit == pytest.approx(0.05 * across)
    (x, y), (right, top) = places["sca 1"], places["none"]
    assert chart.steps == f"M{LEFT:.1f},{y:.1f}V{y:.1f}H{x:.1f}V{top:.1f}H{right:.1f}V{TOP:.1f}"
    assert [marker.best for marker in chart.markers] == [True, True, False]
    assert sorted(label.words for label in chart.labels) == ["none", "sca 1"]


@pytest.mark.parametrize(("families", "each"), [(1, 1), (4, 3), (25, 1), (25, 5)])
def test_labels_and_markers_stay_inside_and_labels_apart(families, each):
    chart = draw_pareto(one(many.grid(families, each)), 0.05)
    assert len(chart.markers) == 1 + families * each
    assert all(LEFT <= marker.x <= RIGHT and TOP <= marker.y <= BOTTOM for marker in chart.markers)
    boxes = [(name.x, name.y + 4 - LINE, name.x + LETTER * len(name.words), name.y + 4) for name in chart.labels]
    assert len(boxes) >= sum(marker.best for marker in chart.markers)
    assert all(box[0] >= LEFT and box[2] <= EDGE and box[1] >= TOP and box[3] <= BOTTOM for box in boxes)
    areas = compute_overlaps(np.array(boxes), np.array(boxes))
    assert areas.sum() == pytest.approx(np.trace(areas))


def test_families_look_different():
    chart = draw_pareto(one(many.grid(25, 2)), 0.05)
    looks = Counter((key.shape, key.colour) for key in chart.legend)
    assert len(looks) == 26
    assert {key.family for key in chart.legend if key.control} == {
        *("standardize-only", "conv-control", "relu-threshold", "low-rank", "downsample")
    }


def test_floors_that_use_features_make_a_band():
    plain = many.record("sca", lost=9, shift=-1.0).model_dump()
    plain["outcome"]["attacks"][1]["scores"]["private"]["psnr"]["mean"] = 13.5
    found = one([many.record(), type(many.record()).model_validate(plain)])
    assert found.floors == (12.0, 13.5)
    chart = draw_pareto(found, 0.05)
    places = {marker.words.split(":")[0]: marker.y for marker in chart.markers}
    assert chart.floor_height == pytest.approx(1.5 * (places["sca"] - places["none"]))
    assert chart.floor - places["sca"] == pytest.approx(5.5 * (places["sca"] - places["none"]))
    assert chart.floor_words == "best floor, 12.00 to 13.50 dB"


def test_long_names_are_cut_and_whole_when_pointed_at():
    label = "sca " + "x" * 80
    records = [many.record(), many.record("sca", label, lost=9, shift=-1.0)]
    chart = draw_pareto(one(records), 0.05)
    assert all(len(name.words) <= 28 for name in chart.labels)
    assert any(label in marker.words for marker in chart.markers)


def test_an_attack_on_a_subset_says_so():
    plain = many.record("sca", shift=-1.0).model_dump()
    for attacker in plain["outcome"]["attacks"]:
        attacker["indices"] = {"private": [0, 1]}
        attacker["scores"]["private"]["psnr"]["n"] = 2
    chart = draw_pareto(one([many.record(), type(many.record()).model_validate(plain)]), 0.05)
    assert chart.partial
    assert chart.markers[1].words.endswith("n = 2 of 3,000")


def test_only_so_many_points_are_labeled():
    records = [many.record(), *(many.record("sca", f"sca {at}", lost=at, shift=-0.1 * at) for at in range(1, 150))]
    chart = draw_pareto(one(records), 0.05)
    assert sum(marker.best for marker in chart.markers) == 150
    assert len(chart.labels) == MAX_LABELS
    assert "none" in {label.words for label in chart.labels}
