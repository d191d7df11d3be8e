"""Class inversion: rows over seeds, and pictures class by class."""

import base64
import io
import json
import re
import statistics

import numpy as np
import pytest
from PIL import Image

from sparseguard.record import ClassInversionDiagnostics, ClassScore, EvaluatorFacts, Flag
from sparseguard.report import group_records, summarize, to_json
from sparseguard.report.analysis.class_report import report_classes
from support import class_records as own
from support import synthetic_records as made
from support.html_pages import words_of
from support.report_forms import matched, page, pareto, terminal

FEATURE_INVERSION_ONLY = (
    "knowledge and attacks",
    "Private minus test",
    "Every attack and floor",
    "id@1 was not measured",
)
BARE = {"scores": {}, "classes": {}, "diagnostics": {}, "loss_curves": {}, "hyperparameters": {}}


def class_rows(records):
    return [row for group in group_records(records) for row in report_classes(group).rows]


def of_attack(records, attack):
    return next(row for row in class_rows(records) if row.attack == attack)


def test_rows_are_means_and_deviations_over_seeds():
    row = of_attack([own.record(seed=0), own.record(seed=1)], "plug-and-play")
    accuracy = row.scores["attack accuracy@1 (pooling)"]
    seeds = [0.8, 0.8 + own.STEP]
    assert accuracy.value.mean == pytest.approx(statistics.fmean(seeds))
    assert accuracy.value.std == pytest.approx(statistics.stdev(seeds))
    assert accuracy.references["chance"].mean == pytest.approx(0.11 + own.STEP / 2)
    assert accuracy.references["chance"].std == pytest.approx(own.STEP / 2**0.5)
    assert accuracy.ci95 is None
    assert [one.ci95 for one in accuracy.seeds] == [pytest.approx((0.7, 0.9)), pytest.approx((0.72, 0.92))]
    assert row.confidence.answer.mean == pytest.approx((0.9 + 0.95) / 2)
    assert row.confidence.best_candidate.mean == pytest.approx(0.65)
    assert row.agreement.mean == pytest.approx(0.91)
    assert row.classes["Coat"].accuracy["striding"].mean == pytest.approx(0.85)
    assert row.rules == {"implicit": 2}
    assert "gradient_rule" not in row.diagnostics
    assert (row.seeds, row.accuracy.mean) == (2, 0.8)


def test_one_seed_has_its_interval_and_no_deviation():
    row = of_attack([own.record()], "plug-and-play")
    found = row.scores["AUC private or unseen (striding)"]
    assert (found.value.std, found.ci95) == (None, pytest.approx((0.41, 0.61)))


def test_controls_follow_attacks_and_defenses_keep_the_recipes_order():
    order = made.config(["zeta", "none"])
    found = class_rows([own.record("none", config=order), own.record("zeta", config=order)])
    expected = ["plug-and-play", "knowing", "pixel-inversion"]
    assert [(row.defense, row.attack) for row in found] == [
        (name, one) for name in ("zeta", "none") for one in expected
    ]


def test_failed_seeds_keep_the_others_and_failed_defenses_keep_a_row():
    records = [own.record("sca 0.5", 1), own.failed("sca 0.5", 0), own.failed("gone")]
    found = class_rows(records)
    assert [(row.defense, row.status, row.seeds, len(row.failures)) for row in found] == [
        ("gone", "failed", 0, 1),
        *[("sca 0.5", "ok", 1, 1)] * 3,
    ]


def test_values_that_are_no_numbers_are_not_available():
    broken = own.attack("a", given=own.prior())
    nan = ClassScore(value=float("nan"), ci95=(float("nan"), 1.0), n=3, chance=float("inf"))
    broken = broken.model_copy(
        update={"scores": {"FID": nan}, "diagnostics": ClassInversionDiagnostics(diversity=float("nan"))}
    )
    record = own.record(attacks=[broken])
    row = of_attack([record], "a")
    assert (row.scores["FID"].value, row.scores["FID"].references, row.diagnostics) == (None, {}, {})
    assert row.scores["FID"].reasons == ("its value is not a finite number",)
    json.dumps(to_json([record]), allow_nan=False)


def test_mixed_recipes_have_both_and_leave_feature_inversion_as_it_was(tmp_path):
    images = [made.record("none"), made.record("sca lambd=0.5", shift=-9.0)]
    classes = [own.record("none"), own.record("sca lambd=0.5"), own.failed("gone")]
    both = [*images, *classes]
    assert summarize(both) == summarize(images)
    assert matched(both) == matched(images)
    assert pareto(both) == pareto(images)
    alone, mixed = to_json(images), to_json(both)
    for name in ("rows", "controls", "differences", "matched_accuracy", "pareto"):
        assert mixed[name] == alone[name]
    assert alone["class_inversion"] == []
    before, after = page(tmp_path, images), page(tmp_path, both)
    section = re.compile(r'<section id="split-.*?</section>', re.S)
    assert section.findall(before) == section.findall(after)
    assert after.count("<section ") == before.count("<section ") + 1
    assert after.count("gone, seed 0") == 1
    assert len(terminal(both)) > len(terminal(images))


def test_classes_alone_have_no_empty_tables_of_feature_inversion(tmp_path):
    text = page(tmp_path, [own.record()])
    assert not [words for words in FEATURE_INVERSION_ONLY if words in text]
    assert text.count("<section ") == 1
    assert "What each defense costs" in text
    assert summarize([own.record()]) == []


def test_failed_cases_are_grouped_by_the_goal_of_their_threat():
    groups = group_records([own.failed(), made.failed(threat="split")])
    assert [(group.kind.value, group.case.threat) for group in groups] == [
        ("feature-inversion", "split"),
        ("class-inversion", "plug-and-play"),
    ]
    assert summarize([own.failed()]) == []


@pytest.mark.parametrize(
    "records",
    [
        [own.failed()],
        [own.record(attacks=[])],
        [
            own.record(
                attacks=[own.attack("bare", scores={}, classes={}, diagnostics={}, loss_curves={}, hyperparameters={})]
            )
        ],
        [own.record(evaluators={}, target=None, features=None, provenance={})],
        [own.record(outcome=None)],
    ],
    ids=["failed", "no attack", "bare attack", "bare record", "no outcome"],
)
def test_incomplete_records_still_make_a_report(tmp_path, records):
    held = {record.case.slug: own.pictures(record) for record in records}
    assert page(tmp_path, records, held, True).endswith("</html>\n")
    assert terminal(records)
    json.dumps(to_json(records), allow_nan=False)


def test_rules_are_told_only_where_there_are_sparse_layers_to_compare_them_in(tmp_path):
    bare = own.attack("a", given=own.prior(), diagnostics={"gradient_rule": "unrolled", "learning_rate": 0.05})
    text = words_of(page(tmp_path, [own.record(attacks=[bare])]))
    assert "gradients pass sparse layers" not in text
    assert "rate: 0.05" in text
    other = own.attack(
        "a", given=own.prior(), diagnostics={"gradient_rule": "unrolled", "gradient_cosine_implicit": 0.5}
    )
    records = [own.record(seed=0), own.record(seed=1, attacks=[other.model_copy(update={"name": "knowing"})])]
    assert of_attack(records, "knowing").rules == {"implicit": 1, "unrolled": 1}
    assert "implicit (1 of 2 seeds), unrolled (1 of 2 seeds)" in words_of(page(tmp_path, records))


def test_pictures_only_when_asked(tmp_path):
    record = own.record()
    held = {record.case.slug: own.pictures(record)}
    without = page(tmp_path, [record], held)
    assert "data:image" not in without
    assert "<img" not in without
    assert "<img" in page(tmp_path, [record], held, True)
    assert "No pictures lie beside these records." in page(tmp_path, [record], {}, True)


def test_pictures_are_those_beside_the_records(tmp_path):
    records = [own.record("none"), own.record("sca 0.25")]
    held = {record.case.slug: own.pictures(record) for record in records}
    text = page(tmp_path, records, held, True)
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" width="(\d+)" alt="([^"]+)"', text)
    images = 3
    per_class = images * (1 + 3 * (1 + 2 * 3))
    assert len(found) == len(own.CLASSES) * per_class
    assert {width for _, width, _ in found} == {"56"}
    shown = {alt: np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) for code, _, alt in found}
    assert len(shown) == len(found)
    for alt, record, key in (
        ("Coat, knowing, defense sca 0.25: answer, image 2", records[1], "knowing"),
        ("Coat, knowing, defense none: starts, before the search, image 2", records[0], "knowing/starts"),
        ("Coat, private images of the class, image 2", records[0], "private"),
    ):
        expected = held[record.case.slug].classes[key][own.CLASSES.index("Coat"), 1, 0]
        np.testing.assert_array_equal(shown[alt], expected)
    assert "<h4>Bag</h4>" in text


def test_pictures_of_other_shapes_are_left_out(tmp_path):
    record = own.record()
    good = own.pictures(record)
    held = {
        record.case.slug: good.model_copy(update={"classes": good.classes | {"knowing": good.classes["private"][:1]}})
    }
    assert "no pictures" in page(tmp_path, [record], held, True)


def test_images_without_an_attack_are_shown_by_defense_where_they_differ(tmp_path):
    records = [own.record("none"), own.record("sca 0.25")]
    held = {record.case.slug: own.pictures(record) for record in records}
    held[records[1].case.slug].classes["knowing/chance"][:] = 5
    text = page(tmp_path, records, held, True)
    assert "Bag, knowing, defense sca 0.25: chance: made without an attack, image 1" in text
    assert "Bag, plug-and-play, chance: made without an attack, image 1" in text


def test_hostile_names_are_escaped_and_markup_is_not_obeyed(tmp_path):
    hostile = '<script>alert("x")</script>'
    names = {"Bag": hostile, "Coat": "[red]x[/red]"}
    facts = {names[label]: one for label, one in own.attack("a").classes.items()}
    score = ClassScore(value=None, reason=hostile, n=3)
    attacker = own.attack(
        hostile,
        given=own.prior(hostile, (hostile,), trained_on=hostile, kind=hostile),
        classes=facts,
        scores={**own.scores(), hostile: score},
        diagnostics={"gradient_rule": hostile, "extra": {hostile: 1.0}},
        hyperparameters={hostile: hostile},
    )
    flag = Flag(name=hostile, message=hostile, expected=hostile)
    record = own.record(
        hostile,
        attacks=[attacker],
        classes=list(names.values()),
        evaluators={hostile: EvaluatorFacts(accuracy=0.5, shuffled_patches=0.1)},
        flags=[flag],
    )
    record = record.model_copy(update={"outcome": record.outcome.model_copy(update={"pairing": hostile})})
    held = {record.case.slug: own.pictures(record)}
    text = page(tmp_path, [record], held, True)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "[red]x[/red]" in terminal([record])
