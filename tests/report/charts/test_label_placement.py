"""Placement of labels within the plot."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sparseguard.report.charts.label_placement import LETTER, place_labels
from sparseguard.report.charts.pareto import BOTTOM, EDGE, LEFT, RIGHT, TOP

EDGES = (LEFT, TOP, EDGE, BOTTOM)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(LEFT, RIGHT), st.floats(TOP, BOTTOM)), min_size=1, max_size=12))
def test_every_label_is_placed_inside(points):
    placed = place_labels([(point, f"name {at}") for at, point in enumerate(points)], points, EDGES)
    assert len(placed) == len(points)
    assert all(name.x >= LEFT and name.x + LETTER * len(name.words) <= EDGE for name in placed)
