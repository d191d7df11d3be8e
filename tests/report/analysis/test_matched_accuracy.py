"""Defenses at matched accuracy: which variant stands for its family, and the reason where none does."""

import pytest

from sparseguard.core.errors import RecipeError
from sparseguard.record import FeatureInversionAttack
from sparseguard.stats import noninferiority_test
from support import many_defenses as many
from support import synthetic_records as made
from support.html_pages import words_of
from support.report_forms import matched, page, terminal


def table(records, max_drop=0.05):
    (found,) = matched(records, max_drop)
    return found


def family(found, name):
    (row,) = (row for row in found.rows if row.family == name)
    return row


def ladder(family="sca", **changes):
    """Variants that leak less and less; the first two keep the accuracy."""
    return [
        many.record(family, f"{family} {at}", lost=lost, shift=-2.0 * at, **changes)
        for at, lost in ((1, 3), (2, 8), (3, 40), (4, 90))
    ]


def test_the_variant_that_leaks_least_among_those_that_keep_the_accuracy_is_selected():
    row = family(table([many.record(), *ladder()]), "sca")
    assert (row.selected.label, row.qualified, [one.label for one in row.candidates]) == (
        "sca 2",
        2,
        ["sca 1", "sca 2", "sca 3", "sca 4"],
    )
    assert [one.evidence.qualifies for one in row.candidates] == [True, True, False, False]
    assert [one.leak for one in row.candidates] == [16.0, 14.0, 12.0, 10.0]
    assert row.selected.accuracy.mean == pytest.approx(1 - 68 / 300)
    assert row.selected.drop.mean == pytest.approx(8 / 300)
    private, test = (row.selected.measures["psnr"][part] for part in ("private", "test"))
    assert (private.score.mean, private.floor, private.leak, test.score.mean) == (16.0, 12.0, 4.0, 15.0)
    assert row.selected.chosen["ssim"] == ("ridge-conv",)
    assert (row.most_accurate, row.reason) == (None, None)


def test_the_test_is_on_the_images_of_tuning_and_auxiliary_val():
    (first, *_) = family(table([many.record(), *ladder()]), "sca").candidates
    assert first.evidence == noninferiority_test(6.0, 0.0, 600, 0.05)
    kept = many.record("sca", lost=3, gained=5)
    (only,) = family(table([many.record(), kept]), "sca").candidates
    assert (only.evidence.lost, only.evidence.gained, only.evidence.drop) == (6, 10, pytest.approx(-4 / 600))


def test_the_choice_reads_neither_test_nor_private():
    records = [many.record(), *ladder()]
    base = family(table(records), "sca").selected.label
    worse = [one.model_copy(update={"target": one.target.model_copy(update={"accuracy": 0.1})}) for one in records[1:]]
    assert family(table([records[0], *worse]), "sca").selected.label == base
    other = [many.record("sca", one.case.defense, attacks=made.attacks(9.0, many.PARTS)) for one in records[1:3]]
    plain = [one.model_dump() for one in other]
    for attacker in (one for record in plain for one in record["outcome"]["attacks"]):
        attacker["scores"]["auxiliary_val"]["psnr"]["mean"] = 1.0 if attacker["name"] == "ridge" else 2.0
    changed = [type(other[0]).model_validate(one) for one in plain]
    leaks = [one.leak for one in family(table([records[0], *changed]), "sca").candidates]
    assert leaks == [1.0, 1.0]


def test_in_layout_paper_tuning_alone_is_read():
    data = {"sizes": many.SIZES, "layout": "paper"}
    found = table([many.record(data=data), many.record("sca", lost=3, data=data)])
    assert (found.splits, found.n) == (("tuning",), 300)


def test_none_is_first_and_needs_no_test():
    order = ("sca 2", "none", "sca 1")
    found = table([many.record(order=order), *(many.record("sca", f"sca {at}", order=order) for at in (1, 2))])
    assert [row.family for row in found.rows] == ["none", "sca"]
    assert [one.label for one in found.rows[1].candidates] == ["sca 2", "sca 1"]
    assert (found.rows[0].selected.label, found.rows[0].selected.evidence, found.rows[0].qualified) == ("none", None, 1)


def test_combined_defenses_are_a_family_and_controls_are_marked():
    names = ("sca+cem", "low-rank", "sca")
    found = table([many.record(), *(many.record(name, f"{name} a=1") for name in names)])
    assert {row.family: row.control for row in found.rows} == {
        "none": False,
        "low-rank": True,
        "sca": False,
        "sca+cem": False,
    }


def test_without_a_recorded_name_each_label_is_its_own_family():
    bare = made.config([])
    found = table([many.record(), many.record("x", "sca 1", config=bare), many.record("x", "sca 2", config=bare)])
    assert [row.family for row in found.rows] == ["none", "sca 1", "sca 2"]


def test_a_family_without_a_variant_that_qualifies_keeps_a_row_with_its_best_accuracy(tmp_path):
    records = [many.record(), *ladder()[2:], *ladder("cem")]
    row = family(table(records), "sca")
    assert (row.selected, row.most_accurate.label, row.qualified) == (None, "sca 3", 0)
    assert row.most_accurate.accuracy.mean == pytest.approx(1 - 100 / 300)
    text = words_of(page(tmp_path, records))
    assert "no variant best accuracy: sca 3 0 of 2 qualify 0.667 drop +0.133" in text
    assert "no variant is shown to keep the accuracy" in text


def test_a_wider_margin_lets_more_qualify():
    records = [many.record(), *ladder()]
    assert [family(table(records, drop), "sca").qualified for drop in (0.03, 0.05, 0.2, 0.5)] == [1, 2, 3, 4]


@pytest.mark.parametrize("drop", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_a_margin_outside_0_and_1_is_refused(drop):
    with pytest.raises(RecipeError, match="--max-drop"):
        matched([many.record()], drop)


def test_different_numbers_of_variants_are_named(tmp_path):
    records = [many.record(), *ladder(), *ladder("cem")[:2]]
    assert table(records).uneven == (2, 4)
    assert table([many.record(), *ladder(), *ladder("cem")]).uneven is None
    text = words_of(page(tmp_path, records))
    assert (
        "The numbers of variants differ: between 2 and 4. The best of more variants leaks less by chance alone." in text
    )


def test_seeds_are_averaged_because_their_images_are_the_same():
    seeds = [{"case": many.record().case.model_copy(update={"seed": seed})} for seed in (0, 1)]
    base = [many.record(**one) for one in seeds]
    case = many.record("sca").case
    own = [
        many.record("sca", lost=lost, shift=shift, case=case.model_copy(update={"seed": seed}))
        for seed, lost, shift in ((0, 4, -1.0), (1, 9, -2.0), (2, 200, -9.0))
    ]
    (tried,) = family(table([*base, *own[:2]]), "sca").candidates
    assert tried.evidence == noninferiority_test((8 + 18) / 2, 0.0, 600, 0.05)
    assert (tried.leak, tried.seeds) == (pytest.approx(16.5), 2)
    assert tried.accuracy.std > 0
    (more,) = family(table([*base, *own]), "sca").candidates
    assert more.evidence == tried.evidence
    (apart,) = family(table([*base, own[2]]), "sca").candidates
    assert (apart.evidence, apart.reason) == (None, "no seed in common with none")


def test_without_none_the_reason_is_given(tmp_path):
    records = ladder()
    found = table(records)
    assert (found.rows, found.reason) == ((), "there are no scores of none")
    text = words_of(page(tmp_path, [*records, made.failed("none")]))
    assert "At matched accuracy Not available: there are no scores of none." in text
    assert "at matched accuracy" not in terminal(records)


def test_records_before_schema_3_say_what_is_missing(tmp_path):
    old = [many.record(name, facts={"misclassified": {}}) for name in ("none", "sca")]
    assert table(old).reason.startswith("accuracy on the tuning split was not recorded")
    assert "accuracy on the tuning split was not recorded" in page(tmp_path, old)
    assert "at matched accuracy" not in terminal(old)
    mixed = family(table([many.record(), old[1]]), "sca")
    assert (mixed.qualified, mixed.selected) == (0, None)
    assert mixed.reason.startswith("accuracy on the tuning split was not recorded")


def test_other_images_are_not_paired():
    data = {"sizes": many.SIZES, "fingerprints": {"tuning": "other"}}
    row = family(table([many.record(), many.record("sca", data=data)]), "sca")
    assert row.reason == "not the same images as none"


def test_a_variant_without_black_box_attack_cannot_be_selected():
    chosen = {"white-box": {"psnr": "ridge"}}
    row = family(table([many.record(), many.record("sca", chosen=chosen)]), "sca")
    assert (row.qualified, row.selected, row.reason) == (1, None, "no attack was chosen for black-box")


def test_gains_of_other_adversaries_are_beside_the_selected_variant():
    plain = many.record("sca").model_dump()
    outcome = plain["outcome"]
    outcome["attacks"].append(dict(outcome["attacks"][2], name="search", knowledge="white-box"))
    outcome["chosen"].append({"knowledge": "white-box", "queries": 1, "metric": "psnr", "attack": "search"})
    outcome["comparisons"] = [
        {
            "kind": "knowledge",
            "first": "search",
            "second": "ridge",
            "metric": "psnr",
            "split": "private",
            "mean": 2.5,
            "ci95": (2.0, 3.0),
            "n": 9,
        }
    ]
    record = type(many.record()).model_validate(plain)
    assert isinstance(record.attacks[-1], FeatureInversionAttack)
    assert family(table([many.record(), record]), "sca").selected.gains == {"white-box": 2.5}


def test_failed_variants_are_counted_apart(tmp_path):
    gone = [made.failed(f"{name} 9", config=made.config([f"{name} 9"])) for name in ("sca", "cem")]
    records = [many.record(), *ladder()[:1], *gone]
    found = table(records)
    assert (len(family(found, "sca").candidates), family(found, "sca").failed) == (1, 1)
    assert (family(found, "cem").reason, family(found, "cem").most_accurate) == ("every variant failed", None)
    assert "every variant failed" in page(tmp_path, records)


def test_too_few_images_are_named(tmp_path):
    data = {"sizes": {**many.SIZES, "tuning": 40, "auxiliary_val": 30}}
    records = [many.record(data=data), many.record("sca", data=data)]
    found = table(records)
    assert (found.n, found.too_few, family(found, "sca").qualified) == (70, True, 0)
    assert "70 images are too few:" in words_of(page(tmp_path, records))
    assert not table([many.record(), *ladder()]).too_few


def test_each_threat_and_tap_has_its_own_table():
    records = [*many.grid(2, 2), *many.grid(2, 2, "end-to-end")]
    tapped = [one.model_copy(update={"case": one.case.model_copy(update={"tap": "x"})}) for one in many.grid(2, 2)]
    assert [(one.threat, one.tap) for one in matched([*records, *tapped])] == [
        ("end-to-end", "last_hidden"),
        ("split", "first_linear"),
        ("split", "x"),
    ]
    assert matched([many.record()]) == []
