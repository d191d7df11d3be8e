"""Differences image by image: of defenses to none, and of adversaries to black-box."""

import numpy as np
import pytest

from sparseguard.record import Record
from sparseguard.report import compare_defenses, summarize
from support import full_records as full
from support.report_forms import feature_groups, terminal

LABELS = ["black-box", "black-box, 16 queries", "white-box"]


def pictures_of(*records, shifts=None):
    """The pictures of records; a shift by defense."""
    shifts = shifts or {}
    return {one.case.slug: full.pictures(one.case.seed, shifts.get(one.case.defense, 0.0)) for one in records}


def compare(records, pictures):
    return [each for group in feature_groups(records, pictures) for each in compare_defenses(group)]


def test_defenses_are_compared_image_by_image():
    records = [full.record(), full.record("sca", shift=4.0)]
    found = compare(records, pictures_of(*records, shifts={"sca": 4.0}))
    assert [(one.defense, one.label) for one in found] == [("sca", label) for label in LABELS]
    difference = found[0].measures["psnr"]["private"]
    assert difference.mean == pytest.approx(-4.0, abs=1e-5)
    assert difference.ci95 == pytest.approx((-4.0, -4.0), abs=1e-5)
    assert (difference.n, difference.std) == (60, None)
    assert found[-1].measures["psnr"]["private"].n == 5


def test_a_difference_pairs_images_by_their_index():
    base, other = full.record(), full.record("sca", shift=2.0)
    changed = other.model_dump()
    for attack in changed["outcome"]["attacks"]:
        if attack["name"] == "search":
            attack["indices"]["private"] = [43, 11, 50, 7, 2]
    other = Record.model_validate(changed)
    pictures = pictures_of(base, other, shifts={"sca": 2.0})
    (found,) = (one for one in compare([base, other], pictures) if one.label == "white-box")
    own = pictures[other.case.slug].scores["search/private/psnr"].astype(float)
    theirs = pictures[base.case.slug].scores["search/private/psnr"].astype(float)
    expected = np.array([own[3] - theirs[0], own[1] - theirs[1], own[0] - theirs[4]])
    assert found.measures["psnr"]["private"].n == 3
    assert found.measures["psnr"]["private"].mean == pytest.approx(expected.mean())


def test_the_deviation_over_seeds_is_apart_from_the_interval_over_images():
    records = [full.record(seed=seed) for seed in (0, 1)]
    records += [full.record("sca", seed=seed, shift=4.0 + seed) for seed in (0, 1)]
    pictures = {
        one.case.slug: full.pictures(one.case.seed, 4.0 + one.case.seed if one.case.defense == "sca" else 0.0)
        for one in records
    }
    difference = compare(records, pictures)[0].measures["psnr"]["private"]
    assert difference.mean == pytest.approx(-4.5, abs=1e-5)
    assert difference.std == pytest.approx(np.std([4, 5], ddof=1), abs=1e-5)
    assert difference.ci95 == pytest.approx((-4.5, -4.5), abs=1e-5)
    assert [round(one.mean, 4) for one in difference.seeds] == [-4.0, -5.0]
    knowledge = summarize(records, pictures)[1].measures["psnr"]["private"].to_black_box
    assert knowledge.std is not None
    assert knowledge.ci95[0] < knowledge.mean < knowledge.ci95[1]
    assert summarize(records)[1].measures["psnr"]["private"].to_black_box.ci95 is None


def test_other_images_are_not_compared():
    base, other = full.record(), full.record("sca", shift=4.0)
    other = other.model_copy(
        update={"data": other.data.model_copy(update={"fingerprints": {"private": "else", "test": "same"}})}
    )
    found = compare([base, other], pictures_of(base, other, shifts={"sca": 4.0}))
    assert {split for one in found for split in one.measures["psnr"]} == {"test"}


@pytest.mark.parametrize("damage", ["missing", "short", "not finite"])
def test_damaged_scores_are_not_compared(damage):
    records = [full.record(), full.record("sca", shift=4.0)]
    pictures = pictures_of(*records, shifts={"sca": 4.0})
    scores = pictures[records[1].case.slug].scores
    for name in [name for name in scores if name.startswith("search/")]:
        if damage == "missing":
            del scores[name]
        elif damage == "short":
            scores[name] = scores[name][:-1]
        else:
            scores[name] = scores[name] * np.float32("nan")
    assert [one.label for one in compare(records, pictures)] == LABELS[:2]


def test_without_scores_or_none_nothing_is_compared():
    records = [full.record(), full.record("sca", shift=4.0)]
    assert compare(records, {}) == []
    assert compare(records[1:], pictures_of(*records)) == []


def test_without_pictures_the_terminal_compares_adversaries_alone():
    records = [full.record(), full.record("sca", shift=4.0)]
    text = terminal(records)
    assert "none: white-box minus black-box" in text
    assert "minus none" not in text
    assert "sca minus none" in terminal(records, pictures_of(*records, shifts={"sca": 4.0}))
