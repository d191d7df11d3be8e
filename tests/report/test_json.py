"""The report as JSON."""

import json

import pytest

from sparseguard.record import SCHEMA_VERSION, Flag
from sparseguard.report import SECTIONS, to_json
from support import class_records as classes
from support import full_records as full
from support import synthetic_records as made


def test_json_round_trips():
    records = [made.record(seed=seed, flags=[Flag(name="a", message="b")]) for seed in (0, 1)] + [made.failed()]
    plain = to_json(records)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["schema_version"] == SCHEMA_VERSION
    assert plain["rows"][0]["measures"]["psnr"]["private"]["leak"] == 8.0
    assert plain["rows"][1]["failures"][0]["seed"] == 0


def test_json_carries_what_the_page_shows():
    records = [full.record(), full.record("sca", shift=4.0), made.failed("gone")]
    shifts = {records[0].case.slug: 0.0, records[1].case.slug: 4.0}
    plain = to_json(records, {slug: full.pictures(0, shift) for slug, shift in shifts.items()})
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    measure = plain["rows"][2]["measures"]["psnr"]["private"]
    assert (measure["n"], measure["total"], measure["to_black_box"]["n"]) == (5, 60, 5)
    assert plain["controls"][0]["name"] == "ridge shuffled"
    assert plain["differences"][0]["measures"]["psnr"]["private"]["mean"] == pytest.approx(-4.0, abs=1e-5)
    assert plain["bounds"][0]["bounds"][1]["reason"] == "the model adds no noise"
    assert (plain["skipped"][0]["attack"], plain["skipped"][0]["reason"]) == (
        "code-decoder",
        "there is no sparse layer",
    )
    assert to_json(records)["differences"] == []


def test_json_has_classes_under_their_own_key():
    found = json.loads(json.dumps(to_json([classes.record(seed=0), classes.record(seed=1)]), allow_nan=False))
    assert [found[name] for name in ("rows", "controls", "differences", "matched_accuracy", "pareto")] == [[]] * 5
    (section,) = found["class_inversion"]
    assert section["classes"] == classes.CLASSES
    assert section["pools"] == [90]
    assert [one["name"] for one in section["evaluators"]] == list(classes.JUDGES)
    assert section["evaluators"][0]["shuffled_patches"]["mean"] == pytest.approx(0.21)
    assert [(one["attacks"], one["prior"]["name"]) for one in section["priors"]] == [
        (["plug-and-play"], "five"),
        (["knowing"], "ten"),
    ]
    row = section["rows"][0]
    assert row["attack"] == "plug-and-play"
    assert row["scores"]["attack accuracy@1 (striding)"]["value"]["mean"] == pytest.approx(0.71)
    assert row["scores"]["FD(fashion-net)"]["reasons"] == ["needs 1,024 images, got 40"]


def test_every_key_is_there_without_records():
    assert list(to_json([])) == ["schema_version", "run_size", *(key for section in SECTIONS for key in section.keys)]


def test_flags_and_failures_name_their_cases():
    flag = Flag(name="a", message="b", expected="c")
    plain = to_json([made.record(flags=[flag]), made.failed("gone")])
    (raised,), (failure,) = plain["flags"], plain["failures"]
    assert (raised["case"]["defense"], raised["name"], raised["expected"]) == ("none", "a", "c")
    assert (failure["case"]["defense"], failure["stage"]) == ("gone", "fit")
