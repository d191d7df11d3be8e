"""Costs of defenses and the figures they compute of themselves."""

from sparseguard.report.sections.defense_costs import summarize_targets
from support import many_defenses as many
from support.html_pages import words_of
from support.report_forms import feature_groups, page


def test_what_a_defense_costs_is_on_the_page(tmp_path):
    figures = {"epsilon": 8.0, "delta": 1e-5, "rero_bound": 0.25}
    records = [
        many.record(),
        many.record("dp-sgd", facts={"defense": figures, "relative_cost": 3.25}),
        many.record("sca", facts={"defense": {"sparse_1_lambda_over_max": 0.125}, "parameters": 7}),
        many.record("old", facts={"relative_cost": None, "step_flops": None}),
    ]
    (group,) = feature_groups(records)
    by_defense = {row.defense: row for row in summarize_targets(group)}
    assert by_defense["dp-sgd"].relative_cost.mean == 3.25
    text = words_of(page(tmp_path, records))
    assert "ε δ reconstruction bound other figures" in text
    assert "dp-sgd 652,510 500 40.0 3.25 8 1e-05 0.25" in text
    assert "sparse 1 lambda over max: 0.125" in text
    assert "old 652,510 500 40.0 not recorded" in text
