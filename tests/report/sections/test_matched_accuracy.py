"""Matched accuracy and the Pareto plot on the page, in the terminal and as JSON."""

import json
import re

from sparseguard.report import to_json
from support import many_defenses as many
from support.report_forms import page, terminal, wording


def ladder(family):
    """Variants that leak less and less; the first two keep the accuracy."""
    return [
        many.record(family, f"{family} {at}", lost=lost, shift=-2.0 * at)
        for at, lost in ((1, 3), (2, 8), (3, 40), (4, 90))
    ]


def test_terminal_and_json_have_the_margin_and_the_selected_variant():
    records = [many.record(), *ladder("sca"), *ladder("cem")[2:], *ladder("low-rank")]
    text = " ".join(terminal(records, max_drop=0.06).split())
    for words in ("at matched accuracy", "16.00/15.00", "2/4", "(control)", "lose less than 0.06", "2 to 4 variants"):
        assert words in text
    plain = to_json(records, max_drop=0.06)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["matched_accuracy"][0]["max_drop"] == 0.06
    sca = next(row for row in plain["matched_accuracy"][0]["rows"] if row["family"] == "sca")
    assert (sca["selected"]["label"], sca["candidates"][0]["evidence"]["n"]) == ("sca 2", 600)
    assert len(plain["targets"]) == len(records)


def test_families_are_escaped(tmp_path):
    hostile = '<script>alert("x")</script>'
    records = [many.record(), *many.grid(6, 3)[1:], many.record(hostile, facts={"defense": {hostile: 1.0}})]
    assert "<script" not in page(tmp_path, records)


def test_the_page_has_the_plot(tmp_path):
    text = page(tmp_path, many.grid(25, 1))
    assert len(re.findall(r'<path class="point', text)) == 26 + 26
    assert "best floor, 12.00 dB" in text
    assert "none: accuracy 0.800, 20.00 dB" in " ".join(wording(text))
