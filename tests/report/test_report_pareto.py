"""The Pareto plot: which points are not dominated, and where everything is drawn."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseguard.report import frontier, rows, to_json, write_page
from sparseguard.report.analysis import pareto
from sparseguard.report.charts.label_placement import LETTER, LINE, names, shared
from sparseguard.report.charts.pareto import BOTTOM, EDGE, LEFT, RIGHT, TOP, draw_pareto
from support import many_defenses as many
from support import synthetic_records as made
from support.html_pages import Balance, words_of

EDGES = (LEFT, TOP, EDGE, BOTTOM)
coarse = st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float))
fine = st.tuples(st.floats(0, 1), st.floats(5, 40))


def dominated(point, others):
    accuracy, leak = point
    return any(a >= accuracy and b <= leak and (a > accuracy or b < leak) for a, b in others)


@given(st.lists(coarse, max_size=25) | st.lists(fine, max_size=25))
def test_the_frontier_is_what_brute_force_finds(points):
    found = frontier(points)
    assert set(found) == {at for at, point in enumerate(points) if not dominated(point, points)}
    assert len(set(found)) == len(found)
    assert [points[at] for at in found] == sorted(points[at] for at in found)


def one(records):
    (found,) = pareto(records, rows(records))
    return found


def test_points_are_accuracy_on_test_and_psnr_on_private_images():
    records = [many.record(), many.record("sca", "sca 1", lost=30, shift=-4.0), many.record("low-rank", lost=60)]
    found = one([*records, made.failed("gone")])
    values = {point.label: (point.accuracy, point.psnr, point.frontier, point.control) for point in found.points}
    assert values == {
        "none": (pytest.approx(0.8), 20.0, True, False),
        "sca 1": (pytest.approx(0.7), 16.0, True, False),
        "low-rank": (pytest.approx(0.6), 20.0, False, True),
    }
    assert found.floors == (12.0, 12.0)
    assert to_json(records)["pareto"][0]["points"][1]["family"] == "low-rank"


def test_one_point_makes_no_plot():
    assert pareto([many.record()], rows([many.record()])) == []
    bare = [many.record(), many.record("sca", chosen={}), many.record("cem", target=None)]
    assert pareto(bare, rows(bare)) == []


def test_everything_is_drawn_where_its_values_are():
    records = [many.record(), many.record("sca", "sca 1", lost=30, shift=-4.0), many.record("low-rank", lost=60)]
    chart = draw_pareto(one(records), 0.05)
    places = {marker.words.split(":")[0]: (marker.x, marker.y) for marker in chart.markers}
    across = (places["none"][0] - places["low-rank"][0]) / 0.2
    up = (places["sca 1"][1] - places["none"][1]) / 4.0
    assert places["sca 1"][0] - places["low-rank"][0] == pytest.approx(0.1 * across)
    assert places["low-rank"][1] == pytest.approx(places["none"][1])
    assert chart.floor - places["sca 1"][1] == pytest.approx(4.0 * up)
    assert places["none"][0] - chart.kept == pytest.approx(0.05 * across)
    (x, y), (right, top) = places["sca 1"], places["none"]
    assert chart.steps == f"M{LEFT:.1f},{y:.1f}V{y:.1f}H{x:.1f}V{top:.1f}H{right:.1f}V{TOP:.1f}"
    assert [marker.best for marker in chart.markers] == [True, False, True]
    assert sorted(name.words for name in chart.names) == ["none", "sca 1"]


@pytest.mark.parametrize(("families", "each"), [(1, 1), (4, 3), (25, 1), (25, 5)])
def test_names_and_markers_stay_inside_and_names_apart(families, each):
    chart = draw_pareto(one(many.grid(families, each)), 0.05)
    assert len(chart.markers) == 1 + families * each
    assert all(LEFT <= marker.x <= RIGHT and TOP <= marker.y <= BOTTOM for marker in chart.markers)
    boxes = [(name.x, name.y + 4 - LINE, name.x + LETTER * len(name.words), name.y + 4) for name in chart.names]
    assert len(boxes) >= sum(marker.best for marker in chart.markers)
    assert all(box[0] >= LEFT and box[2] <= EDGE and box[1] >= TOP and box[3] <= BOTTOM for box in boxes)
    areas = shared(np.array(boxes), np.array(boxes))
    assert areas.sum() == pytest.approx(np.trace(areas))


def test_families_look_different():
    chart = draw_pareto(one(many.grid(25, 2)), 0.05)
    looks = Counter((key.shape, key.colour) for key in chart.legend)
    assert len(looks) == 26
    assert [key.family for key in chart.legend if key.control] == sorted(
        ["standardize-only", "conv-control", "relu-threshold", "low-rank", "downsample"]
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(LEFT, RIGHT), st.floats(TOP, BOTTOM)), min_size=1, max_size=12))
def test_every_name_is_placed_inside(points):
    placed = names([(point, f"name {at}") for at, point in enumerate(points)], points, EDGES)
    assert len(placed) == len(points)
    assert all(name.x >= LEFT and name.x + LETTER * len(name.words) <= EDGE for name in placed)


def test_floors_that_use_the_leak_make_a_band():
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
    assert all(len(name.words) <= 28 for name in chart.names)
    assert any(label in marker.words for marker in chart.markers)


def test_an_attack_on_some_images_says_so():
    plain = many.record("sca", shift=-1.0).model_dump()
    for attacker in plain["outcome"]["attacks"]:
        attacker["indices"] = {"private": [0, 1]}
        attacker["scores"]["private"]["psnr"]["n"] = 2
    chart = draw_pareto(one([many.record(), type(many.record()).model_validate(plain)]), 0.05)
    assert chart.partial
    assert chart.markers[1].words.endswith("n = 2 of 3,000")


def test_the_page_holds_the_plot_and_nothing_from_elsewhere(tmp_path):
    path = tmp_path / "report.html"
    write_page(many.grid(25, 1), {}, path, False)
    text = path.read_text(encoding="utf-8")
    seen = Balance()
    seen.feed(text)
    assert (seen.open, seen.wrong) == ([], [])
    assert "script" not in seen.tags
    assert not re.search(r"https?:|url\(|@import", text)
    assert len(re.findall(r'<path class="point', text)) == 26 + 26
    assert "none: accuracy 0.800, 20.00 dB" in words_of(text)
    assert "best floor, 12.00 dB" in text
