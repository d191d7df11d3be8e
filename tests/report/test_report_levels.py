"""Levels, attackers of some images, controls and differences, on records with everything in them."""

import json

import numpy as np
import pytest

from sparseguard.record import Record
from sparseguard.report import between_defenses, cell_controls, rows, to_json
from sparseguard.report.analysis.threat_levels import chosen_at, level_of
from support import full_records as full
from support import synthetic_records as made

LEVELS = ["black-box", "black-box ×16", "white-box"]  # noqa: RUF001


def held(*records, shifts=None):
    """The pictures of records; a shift by defense."""
    shifts = shifts or {}
    return {one.case.slug: full.pictures(one.case.seed, shifts.get(one.case.defense, 0.0)) for one in records}


def test_levels_come_in_the_order_of_what_is_known():
    found = rows([full.record()])
    assert [row.level for row in found] == LEVELS
    assert [(row.knowledge, row.repeats) for row in found] == [("black-box", 1), ("black-box", 16), ("white-box", 1)]


def test_a_row_of_some_images_says_how_many_and_compares_on_these():
    record = full.record()
    row = rows([record])[-1]
    measure = row.measures["psnr"]["private"]
    assert (measure.n, measure.of, measure.partial) == (5, 60, True)
    assert row.partial == {"private": (5, 60), "test": (4, 40)}
    scores = full.scores()
    shared = full.SUBSET["private"]
    expected = scores["search/private/psnr"].astype(float) - scores["ridge-conv/private/psnr"].astype(float)[shared]
    assert measure.to_outputs.mean == pytest.approx(expected.mean())
    assert measure.to_outputs.n == 5
    assert measure.to_outputs.ci95 == pytest.approx((expected.mean() - 0.25, expected.mean() + 0.25))


def test_the_floor_of_some_images_is_of_these_or_not_told():
    record = full.record()
    without = rows([record])[-1].measures["psnr"]["private"]
    assert (without.floor, without.floor_names, without.leak) == (None, (), None)
    found = rows([record], held(record))[-1].measures["psnr"]["private"]
    expected = full.scores()["mean-image/private/psnr"].astype(float)[full.SUBSET["private"]].mean()
    everywhere = rows([record])[0].measures["psnr"]["private"].floor
    assert found.floor == pytest.approx(expected)
    assert abs(expected - everywhere) > 0.1
    assert found.leak == pytest.approx(found.leaked.mean - expected)


def test_rows_of_all_images_need_no_pictures():
    record = full.record()
    for with_pictures in ({}, held(record)):
        measure = rows([record], with_pictures)[0].measures["psnr"]["private"]
        assert measure.floor == pytest.approx(record.outcome.attack("mean-image").scores["private"]["psnr"].mean)
        assert (measure.partial, measure.to_outputs) == (False, None)


def test_intervals_are_by_the_bootstrap_where_scores_are_at_hand():
    record = full.record()
    values = full.scores()["ridge-conv/private/psnr"].astype(float)
    assert rows([record], held(record))[0].measures["psnr"]["private"].ci95 == bootstrap_interval(values)
    summary = record.outcome.attack("ridge-conv").scores["private"]["psnr"]
    assert rows([record])[0].measures["psnr"]["private"].ci95 == summary.ci95


def test_a_control_is_never_chosen():
    wrong = {"black-box": {"psnr": "ridge shuffled", "ssim": "mean-image", "id@1": "ridge"}}
    record = full.record(chosen=wrong)
    (row,) = rows([record])
    assert row.chosen == {"psnr": (), "ssim": (), "id@1": ("ridge",)}
    assert row.measures["psnr"]["private"].leaked is None
    assert chosen_at(record, "black-box", "psnr") is None
    chosen = {name for row in rows([full.record()]) for names in row.chosen.values() for name in names}
    assert "ridge shuffled" not in chosen


def test_controls_stand_beside_the_attack_they_belong_to():
    record = full.record()
    (control,) = cell_controls([record], {})
    assert (control.name, control.belongs_to, control.level) == ("ridge shuffled", ("ridge",), "black-box")
    assert control.words[0].startswith("shuffled features")
    found = control.measures["psnr"]["private"]
    assert found.attack.mean == pytest.approx(record.outcome.attack("ridge").scores["private"]["psnr"].mean)
    assert found.difference.mean == pytest.approx(found.control.mean - found.attack.mean)


def test_a_control_without_comparison_has_only_its_own_score():
    (control,) = cell_controls([full.record(comparisons=[])], {})
    found = control.measures["psnr"]["private"]
    assert (control.belongs_to, found.attack, found.difference) == ((), None, None)


def test_defenses_are_compared_image_by_image():
    records = [full.record(), full.record("sca", shift=4.0)]
    found = between_defenses(records, held(*records, shifts={"sca": 4.0}))
    assert [(one.defense, one.level) for one in found] == [("sca", level) for level in LEVELS]
    difference = found[0].measures["psnr"]["private"]
    assert difference.mean == pytest.approx(-4.0, abs=1e-5)
    assert difference.ci95 == pytest.approx((-4.0, -4.0), abs=1e-5)
    assert (difference.n, difference.std) == (60, None)
    assert found[-1].measures["psnr"]["private"].n == 5


def test_a_difference_pairs_images_by_their_place():
    base, other = full.record(), full.record("sca", shift=2.0)
    changed = other.model_dump()
    for attack in changed["outcome"]["attacks"]:
        if attack["name"] == "search":
            attack["indices"]["private"] = [43, 11, 50, 7, 2]
    other = Record.model_validate(changed)
    pictures = held(base, other, shifts={"sca": 2.0})
    (found,) = (one for one in between_defenses([base, other], pictures) if one.level == "white-box")
    own = pictures[other.case.slug].scores["search/private/psnr"].astype(float)
    theirs = pictures[base.case.slug].scores["search/private/psnr"].astype(float)
    expected = np.array([own[3] - theirs[0], own[1] - theirs[1], own[0] - theirs[4]])
    assert found.measures["psnr"]["private"].n == 3
    assert found.measures["psnr"]["private"].mean == pytest.approx(expected.mean())


def test_the_spread_over_seeds_is_told_apart_from_the_interval_over_images():
    records = [full.record(seed=seed) for seed in (0, 1)]
    records += [full.record("sca", seed=seed, shift=4.0 + seed) for seed in (0, 1)]
    pictures = {
        one.case.slug: full.pictures(one.case.seed, 4.0 + one.case.seed if one.case.defense == "sca" else 0.0)
        for one in records
    }
    difference = between_defenses(records, pictures)[0].measures["psnr"]["private"]
    assert difference.mean == pytest.approx(-4.5, abs=1e-5)
    assert difference.std == pytest.approx(np.std([4, 5], ddof=1), abs=1e-5)
    assert difference.ci95 == pytest.approx((-4.5, -4.5), abs=1e-5)
    assert [round(one.mean, 4) for one in difference.seeds] == [-4.0, -5.0]
    level = rows(records, pictures)[1].measures["psnr"]["private"].to_outputs
    assert level.std is not None
    assert level.ci95[0] < level.mean < level.ci95[1]
    assert rows(records)[1].measures["psnr"]["private"].to_outputs.ci95 is None


def test_other_images_are_not_compared():
    base, other = full.record(), full.record("sca", shift=4.0)
    other = other.model_copy(update={"data": other.data.model_copy(update={"fingerprints": {"private": "else", "test": "same"}})})
    found = between_defenses([base, other], held(base, other, shifts={"sca": 4.0}))
    assert {part for one in found for part in one.measures["psnr"]} == {"test"}


@pytest.mark.parametrize("damage", ["missing", "short", "not finite"])
def test_damaged_scores_are_not_compared(damage):
    records = [full.record(), full.record("sca", shift=4.0)]
    pictures = held(*records, shifts={"sca": 4.0})
    scores = pictures[records[1].case.slug].scores
    for name in [name for name in scores if name.startswith("search/")]:
        if damage == "missing":
            del scores[name]
        elif damage == "short":
            scores[name] = scores[name][:-1]
        else:
            scores[name] = scores[name] * np.float32("nan")
    assert [one.level for one in between_defenses(records, pictures)] == LEVELS[:2]


def test_without_scores_or_none_nothing_is_compared():
    records = [full.record(), full.record("sca", shift=4.0)]
    assert between_defenses(records, {}) == []
    assert between_defenses(records[1:], held(*records)) == []


def test_json_carries_what_the_page_shows():
    records = [full.record(), full.record("sca", shift=4.0), made.failed("gone")]
    plain = to_json(records, held(*records[:2], shifts={"sca": 4.0}))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    measure = plain["rows"][2]["measures"]["psnr"]["private"]
    assert (measure["n"], measure["of"], measure["to_outputs"]["n"]) == (5, 60, 5)
    assert plain["controls"][0]["controls"][0]["name"] == "ridge shuffled"
    assert plain["differences"][0]["measures"]["psnr"]["private"]["mean"] == pytest.approx(-4.0, abs=1e-5)
    assert plain["cases"][0]["bounds"][1]["reason"] == "the model adds no noise"
    assert plain["cases"][0]["skipped"] == {"code-decoder": "there is no sparse layer"}
    assert to_json(records)["differences"] == []
