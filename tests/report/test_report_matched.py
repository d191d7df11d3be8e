"""Defenses at matched accuracy: which setting stands for its family, and what is said where none does."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from sparseguard.cli import app as cli
from sparseguard.core.errors import RecipeError
from sparseguard.record import FeatureInversionAttack
from sparseguard.report import MAX_DROP, matched, render, rows, to_json, write_page
from sparseguard.report.analysis.defense_cost import columns, target_rows
from sparseguard.stats import noninferiority_test
from support import many_defenses as many
from support import synthetic_records as made
from support.html_pages import Balance, words_of


def words(text):
    return " ".join(text.split())


def tables(records, max_drop=0.05):
    return matched(records, rows(records), max_drop)


def table(records, max_drop=0.05):
    (found,) = tables(records, max_drop)
    return found


def family(found, name):
    (row,) = (row for row in found.rows if row.family == name)
    return row


def page(tmp_path, records, **options):
    path = tmp_path / "report.html"
    write_page(records, {}, path, False, **options)
    return path.read_text(encoding="utf-8")


def ladder(family="sca", **changes):
    """Settings that leak less and less; the first two keep the accuracy."""
    return [
        many.record(family, f"{family} {at}", lost=lost, shift=-2.0 * at, **changes)
        for at, lost in ((1, 3), (2, 8), (3, 40), (4, 90))
    ]


def test_the_setting_that_leaks_least_among_those_that_keep_the_accuracy_is_picked():
    row = family(table([many.record(), *ladder()]), "sca")
    assert (row.pick.label, row.qualified, [one.label for one in row.tried]) == (
        "sca 2",
        2,
        ["sca 1", "sca 2", "sca 3", "sca 4"],
    )
    assert [one.evidence.qualifies for one in row.tried] == [True, True, False, False]
    assert [one.leak for one in row.tried] == [16.0, 14.0, 12.0, 10.0]
    assert row.pick.accuracy.mean == pytest.approx(1 - 68 / 300)
    assert row.pick.drop.mean == pytest.approx(8 / 300)
    private, test = (row.pick.measures["psnr"][part] for part in ("private", "test"))
    assert (private.leaked.mean, private.floor, private.leak, test.leaked.mean) == (16.0, 12.0, 4.0, 15.0)
    assert row.pick.chosen["ssim"] == ("ridge-conv",)
    assert (row.best, row.reason) == (None, None)


def test_the_test_is_on_the_images_of_select_and_auxiliary_val():
    (first, *_) = family(table([many.record(), *ladder()]), "sca").tried
    assert first.evidence == noninferiority_test(6.0, 0.0, 600, 0.05)
    kept = many.record("sca", lost=3, gained=5)
    (only,) = family(table([many.record(), kept]), "sca").tried
    assert (only.evidence.lost, only.evidence.gained, only.evidence.drop) == (6, 10, pytest.approx(-4 / 600))


def test_the_choice_reads_neither_test_nor_private():
    records = [many.record(), *ladder()]
    base = family(table(records), "sca").pick.label
    worse = [one.model_copy(update={"target": one.target.model_copy(update={"accuracy": 0.1})}) for one in records[1:]]
    assert family(table([records[0], *worse]), "sca").pick.label == base
    other = [many.record("sca", one.case.defense, attacks=made.attacks(9.0, many.PARTS)) for one in records[1:3]]
    plain = [one.model_dump() for one in other]
    for attacker in (one for record in plain for one in record["outcome"]["attacks"]):
        attacker["scores"]["auxiliary_val"]["psnr"]["mean"] = 1.0 if attacker["name"] == "ridge" else 2.0
    changed = [type(other[0]).model_validate(one) for one in plain]
    leaks = [one.leak for one in family(table([records[0], *changed]), "sca").tried]
    assert leaks == [1.0, 1.0]


def test_in_layout_paper_select_alone_is_read():
    data = {"sizes": many.SIZES, "layout": "paper"}
    found = table([many.record(data=data), many.record("sca", lost=3, data=data)])
    assert (found.parts, found.n) == (("tuning",), 300)


def test_none_is_first_and_needs_no_test():
    order = ("sca 2", "none", "sca 1")
    found = table([many.record(order=order), *(many.record("sca", f"sca {at}", order=order) for at in (1, 2))])
    assert [row.family for row in found.rows] == ["none", "sca"]
    assert [one.label for one in found.rows[1].tried] == ["sca 2", "sca 1"]
    assert (found.rows[0].pick.label, found.rows[0].pick.evidence, found.rows[0].qualified) == ("none", None, 1)


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


def test_a_family_without_a_setting_that_qualifies_keeps_a_row_with_its_best_accuracy(tmp_path):
    records = [many.record(), *ladder()[2:], *ladder("cem")]
    row = family(table(records), "sca")
    assert (row.pick, row.best.label, row.qualified) == (None, "sca 3", 0)
    assert row.best.accuracy.mean == pytest.approx(1 - 100 / 300)
    text = words_of(page(tmp_path, records))
    assert "no setting best accuracy: sca 3 0 of 2 qualify 0.667 drop +0.133" in text
    assert "no setting tried is shown to keep the accuracy" in text


def test_a_wider_margin_lets_more_qualify():
    records = [many.record(), *ladder()]
    assert [family(table(records, drop), "sca").qualified for drop in (0.03, 0.05, 0.2, 0.5)] == [1, 2, 3, 4]


@pytest.mark.parametrize("drop", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_a_margin_outside_0_and_1_is_refused(drop):
    with pytest.raises(RecipeError, match="--max-drop"):
        tables([many.record()], drop)


def test_different_numbers_of_settings_are_told(tmp_path):
    records = [many.record(), *ladder(), *ladder("cem")[:2]]
    assert table(records).uneven == (2, 4)
    assert table([many.record(), *ladder(), *ladder("cem")]).uneven is None
    text = words_of(page(tmp_path, records))
    assert (
        "The numbers of settings differ: between 2 and 4 were tried. Picking from more settings finds less leak" in text
    )


def test_seeds_are_averaged_because_their_images_are_the_same():
    seeds = [{"case": many.record().case.model_copy(update={"seed": seed})} for seed in (0, 1)]
    base = [many.record(**one) for one in seeds]
    case = many.record("sca").case
    own = [
        many.record("sca", lost=lost, shift=shift, case=case.model_copy(update={"seed": seed}))
        for seed, lost, shift in ((0, 4, -1.0), (1, 9, -2.0), (2, 200, -9.0))
    ]
    (tried,) = family(table([*base, *own[:2]]), "sca").tried
    assert tried.evidence == noninferiority_test((8 + 18) / 2, 0.0, 600, 0.05)
    assert (tried.leak, tried.seeds) == (pytest.approx(16.5), 2)
    assert tried.accuracy.std > 0
    (more,) = family(table([*base, *own]), "sca").tried
    assert more.evidence == tried.evidence
    (apart,) = family(table([*base, own[2]]), "sca").tried
    assert (apart.evidence, apart.reason) == (None, "no seed in common with none")


def test_without_none_the_reason_is_given(tmp_path):
    records = ladder()
    found = table(records)
    assert (found.rows, found.reason) == ((), "there are no scores of none")
    text = words_of(page(tmp_path, [*records, made.failed("none")]))
    assert "At matched accuracy Not available: there are no scores of none." in text
    assert len(render(records)) == 1


def test_records_before_schema_3_say_what_is_missing(tmp_path):
    old = [many.record(name, facts={"misclassified": {}}) for name in ("none", "sca")]
    assert table(old).reason.startswith("accuracy on select was not recorded")
    assert "accuracy on select was not recorded" in page(tmp_path, old)
    assert len(render(old)) == 1
    mixed = family(table([many.record(), old[1]]), "sca")
    assert (mixed.qualified, mixed.pick) == (0, None)
    assert mixed.reason.startswith("accuracy on select was not recorded")


def test_other_images_are_not_paired():
    data = {"sizes": many.SIZES, "fingerprints": {"tuning": "other"}}
    row = family(table([many.record(), many.record("sca", data=data)]), "sca")
    assert row.reason == "not the same images as none"


def test_a_setting_that_was_not_attacked_at_outputs_cannot_be_picked():
    chosen = {"white-box": {"psnr": "ridge"}}
    row = family(table([many.record(), many.record("sca", chosen=chosen)]), "sca")
    assert (row.qualified, row.pick, row.reason) == (1, None, "no attacker was chosen at level black-box")


def test_what_other_levels_reach_is_told_beside_the_pick():
    plain = many.record("sca").model_dump()
    outcome = plain["outcome"]
    outcome["attacks"].append(dict(outcome["attacks"][2], name="search", knowledge="white-box"))
    outcome["chosen"].append({"knowledge": "white-box", "metric": "psnr", "attack": "search"})
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
    assert family(table([many.record(), record]), "sca").pick.gains == {"white-box": 2.5}


def test_failed_settings_are_counted_apart(tmp_path):
    gone = [made.failed(f"{name} 9", config=made.config([f"{name} 9"])) for name in ("sca", "cem")]
    records = [many.record(), *ladder()[:1], *gone]
    found = table(records)
    assert (len(family(found, "sca").tried), family(found, "sca").failed) == (1, 1)
    assert (family(found, "cem").reason, family(found, "cem").best) == ("every setting failed", None)
    assert "every setting failed" in page(tmp_path, records)


def test_too_few_images_are_told(tmp_path):
    data = {"sizes": {**many.SIZES, "tuning": 40, "auxiliary_val": 30}}
    records = [many.record(data=data), many.record("sca", data=data)]
    found = table(records)
    assert (found.n, found.too_few, family(found, "sca").qualified) == (70, True, 0)
    assert "70 images are too few:" in words_of(page(tmp_path, records))
    assert not table([many.record(), *ladder()]).too_few


def test_each_threat_and_tap_has_its_own_table():
    records = [*many.grid(2, 2), *many.grid(2, 2, "end-to-end")]
    tapped = [one.model_copy(update={"case": one.case.model_copy(update={"tap": "x"})}) for one in many.grid(2, 2)]
    assert [(one.threat, one.tap) for one in tables([*records, *tapped])] == [
        ("end-to-end", "last_hidden"),
        ("split", "first_linear"),
        ("split", "x"),
    ]
    assert tables([many.record()]) == []


def test_terminal_and_json_carry_it():
    records = [many.record(), *ladder(), *ladder("cem-with-a-very-long-name-of-its-own")[2:], *ladder("low-rank")]
    console = Console(width=100, file=io.StringIO(), color_system=None)
    found = render(records, max_drop=0.06)
    assert len(found) == 2
    console.print(found[-1])
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    joined = words(text)
    for piece in ("at matched accuracy", "16.00/15.00", "2/4", "(control)", "lose less than 0.06", "2 to 4 settings"):
        assert piece in joined, piece
    plain = to_json(records, max_drop=0.06)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["matched"][0]["max_drop"] == 0.06
    sca = next(row for row in plain["matched"][0]["rows"] if row["family"] == "sca")
    assert (sca["pick"]["label"], sca["tried"][0]["evidence"]["n"]) == ("sca 2", 600)
    assert len(plain["targets"]) == len(records)


def test_what_a_defense_costs_is_on_the_page(tmp_path):
    figures = {"epsilon": 8.0, "delta": 1e-5, "rero_bound": 0.25}
    records = [
        many.record(),
        many.record("dp-sgd", facts={"defense": figures, "relative_cost": 3.25}),
        many.record("sca", facts={"defense": {"sparse_1_lambda_over_max": 0.125}, "parameters": 7}),
        many.record("old", facts={"relative_cost": None, "step_flops": None}),
    ]
    found = target_rows(records)
    assert list(columns(found)) == ["epsilon", "delta", "reconstruction_bound"]
    assert columns(found[2:]) == {}
    assert found[1].relative_cost.mean == 3.25
    text = words_of(page(tmp_path, records))
    assert "ε δ reconstruction bound other figures" in text
    assert "dp-sgd 652,510 500 40.0 3.25 8 1e-05 0.25" in text
    assert "sparse 1 lambda over max: 0.125" in text
    assert "old 652,510 500 40.0 not recorded" in text


def test_the_page_is_well_formed_and_escapes_families(tmp_path):
    hostile = '<script>alert("x")</script>'
    records = [many.record(), *many.grid(6, 3)[1:], many.record(hostile, facts={"defense": {hostile: 1.0}})]
    text = page(tmp_path, records)
    seen = Balance()
    seen.feed(text)
    assert (seen.open, seen.wrong) == ([], [])
    assert "<script" not in text


def test_the_command_line_takes_the_margin_and_refuses_a_wrong_one(tmp_path):
    for one in (many.record(), *ladder()):
        path = tmp_path / "records" / f"{one.case.slug}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(one.model_dump_json())
    command = [sys.executable, "-m", "sparseguard", "report", str(tmp_path), "--json", "--max-drop"]
    wide, wrong = (
        subprocess.run([*command, value], capture_output=True, text=True, check=False) for value in ("0.2", "2")
    )
    assert wide.returncode == 0, wide.stderr
    assert json.loads(wide.stdout)["matched"][0]["rows"][1]["qualified"] == 3
    assert wrong.returncode == 2
    assert "--max-drop must be between 0 and 1, got 2." in " ".join(wrong.stderr.split())
    assert cli.MAX_DROP == MAX_DROP
