"""Bounds over seeds, and the bars of layer-wise reconstruction."""

from sparseguard.record import Bound
from sparseguard.report.sections.bounds import tabulate_bounds
from support import full_records as full
from support import synthetic_records as made
from support.report_forms import feature_groups


def tables(records):
    (group,) = feature_groups(records)
    return tabulate_bounds(group)


def test_bounds_of_several_seeds_are_averaged():
    records = [full.record(seed=seed, bounds=full.bounds(30.0 + seed)) for seed in (0, 1)]
    (table,) = tables(records)
    assert table.seeds == 2
    assert table.rows[0].figures == (("codes by decode", "29.50 ± 0.71 dB"),)
    assert table.rows[1].reason == "the model adds no noise"
    assert [bar.layer for bar in table.layers.bars] == ["image", "codes", "first", "last"]
    assert [bar.mark is not None for bar in table.layers.bars] == [False, False, True, False]
    assert table.layers.bars[0].words == "exact"
    assert tables([made.record()]) == []


def test_bounds_that_differ_between_seeds_still_make_a_table():
    other = [Bound(name="else", meaning="m", values={"a": 1.0})]
    (table,) = tables([full.record(seed=0), full.record(seed=1, bounds=other)])
    assert [row.name for row in table.rows] == ["layer-wise reconstruction (last)", "noise-pool", "null-space"]
