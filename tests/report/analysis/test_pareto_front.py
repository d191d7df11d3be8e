"""Variants that no other one beats in accuracy and leak."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseguard.report import find_frontier, to_json
from support import many_defenses as many
from support import synthetic_records as made
from support.report_forms import pareto

coarse = st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float))
fine = st.tuples(st.floats(0, 1), st.floats(5, 40))


def one(records):
    (found,) = pareto(records)
    return found


def dominated(point, others):
    accuracy, leak = point
    return any(a >= accuracy and b <= leak and (a > accuracy or b < leak) for a, b in others)


@given(st.lists(coarse, max_size=25) | st.lists(fine, max_size=25))
def test_the_frontier_is_what_brute_force_finds(points):
    found = find_frontier(points)
    assert set(found) == {at for at, point in enumerate(points) if not dominated(point, points)}
    assert len(set(found)) == len(found)
    assert [points[at] for at in found] == sorted(points[at] for at in found)


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
    assert to_json(records)["pareto"][0]["points"][1]["family"] == "sca"


def test_one_point_makes_no_plot():
    assert pareto([many.record()]) == []
    bare = [many.record(), many.record("sca", chosen={}), many.record("cem", target=None)]
    assert pareto(bare) == []
