"""Rows of feature inversion: means over seeds, floors, adversaries, subsets of images."""

import statistics

import pytest

from sparseguard.record import Flag
from sparseguard.report import describe_run_size, summarize
from sparseguard.report.analysis.adversary import BLACK_BOX, find_chosen_attack
from sparseguard.stats import bootstrap_interval
from support import full_records as full
from support import synthetic_records as made

ADVERSARIES = [("black-box", 1), ("black-box", 16), ("white-box", 1)]


def test_one_seed_gives_the_records_own_numbers():
    (row,) = summarize([made.record()])
    psnr = row.measures["psnr"]
    assert psnr["private"].score.mean == 20.0
    assert psnr["private"].score.std is None
    assert (psnr["private"].floor, psnr["private"].floor_names, psnr["private"].leak) == (12.0, ("class-mean",), 8.0)
    assert (psnr["test"].score.mean, psnr["test"].floor, psnr["test"].leak) == (19.0, 11.0, 8.0)
    assert row.chosen == {"psnr": ("ridge",), "ssim": ("ridge-conv",), "id@1": ("ridge",)}
    assert row.measures["ssim"]["private"].score.mean == 0.6
    assert row.measures["ssim"]["private"].floor_names == ("mean-image",)
    assert row.measures["id@1"]["test"].leak == pytest.approx(0.88)
    assert (row.status, row.seeds, row.knowledge, row.dimension) == ("ok", 1, "black-box", 500)


def test_seeds_are_averaged_with_their_standard_deviation():
    (row,) = summarize([made.record(seed=seed, accuracy=0.8 + 0.01 * seed, shift=3.0 * seed) for seed in (0, 1, 2)])
    private = row.measures["psnr"]["private"]
    assert row.seeds == 3
    assert row.accuracy.mean == pytest.approx(0.81)
    assert row.accuracy.std == pytest.approx(0.01)
    assert private.score.mean == pytest.approx(23.0)
    assert private.score.std == pytest.approx(statistics.stdev([20.0, 23.0, 26.0]))
    assert private.leak == pytest.approx(11.0)
    assert row.effective_rank == pytest.approx(43.0)


def test_each_seed_counts_with_its_own_chosen_attack():
    other = {"black-box": {"psnr": "ridge-conv", "ssim": "ridge-conv", "id@1": "ridge"}}
    (row,) = summarize([made.record(seed=0), made.record(seed=1, chosen=other)])
    assert row.measures["psnr"]["private"].score.mean == pytest.approx((20.0 + 18.0) / 2)
    assert row.chosen["psnr"] == ("ridge", "ridge-conv")


def test_each_adversary_has_its_row():
    levels = {"white-box": {"psnr": "ridge"}, "black-box": {"psnr": "ridge-conv"}}
    found = summarize([made.record(chosen=levels)])
    assert [row.knowledge for row in found] == ["black-box", "white-box"]
    assert [row.measures["psnr"]["private"].score.mean for row in found] == [18.0, 20.0]
    assert list(found[0].measures) == ["psnr"]


def test_private_minus_test_needs_equal_numbers_for_identification():
    (row,) = summarize([made.record()])
    assert row.memorization == {"psnr": 1.0, "ssim": 0.0, "id@1": None}
    assert row.floor_memorization == {"psnr": 1.0, "ssim": 0.0, "id@1": None}
    (row,) = summarize([made.record(pools={"private": 900, "test": 900})])
    assert row.memorization["id@1"] == 0.0


def test_a_missing_split_is_absent_not_zero():
    (row,) = summarize([made.record(attacks=made.attacks(parts={"private": 0.0}))])
    assert list(row.measures["psnr"]) == ["private"]
    assert row.memorization["psnr"] is None


def test_a_leak_below_the_floor_is_negative():
    (row,) = summarize([made.record(shift=-9.0)])
    assert row.measures["psnr"]["private"].leak == -1.0


def test_without_floors_there_is_a_score_but_no_leak():
    attackers = [one for one in made.attacks() if not one.floor]
    (row,) = summarize([made.record(attacks=attackers)])
    private = row.measures["psnr"]["private"]
    assert (private.score.mean, private.floor, private.floor_names, private.leak) == (20.0, None, (), None)


def test_a_failed_case_keeps_its_row_and_reason():
    none, sca = summarize([made.failed("sca lambd=0.5"), made.record("none")])
    assert (none.defense, sca.defense, sca.status, sca.seeds) == ("none", "sca lambd=0.5", "failed", 0)
    assert sca.failures[0].reason == "fit: TrainingError: the loss is not finite at epoch 3."


def test_a_failed_seed_leaves_the_others_numbers():
    (row,) = summarize([made.record("sca", seed=0), made.failed("sca", seed=1)])
    assert (row.status, row.seeds, row.accuracy.mean) == ("ok", 1, 0.8)
    assert [one.seed for one in row.failures] == [1]


def test_flags_are_listed_once_with_what_the_recipe_expects():
    flags = [Flag(name="low-accuracy", message="m", expected="Few epochs."), Flag(name="below-floor", message="m")]
    (row,) = summarize([made.record(seed=0, flags=flags), made.record(seed=1, flags=flags[:1])])
    assert [(flag.name, flag.expected) for flag in row.flags] == [
        ("low-accuracy", "Few epochs."),
        ("below-floor", None),
    ]


def test_order_is_threat_then_the_recipes_defenses():
    order = ["none", "zeta", "alpha"]
    shuffled = [
        made.record(defense, threat, order=order) for threat in ("split", "end-to-end") for defense in sorted(order)
    ]
    found = [(row.threat, row.defense) for row in summarize(shuffled)]
    assert found == [(threat, defense) for threat in ("end-to-end", "split") for defense in order]


def test_without_an_order_none_comes_first():
    found = [row.defense for row in summarize([made.record(defense) for defense in ("beta", "alpha", "none")])]
    assert found == ["none", "alpha", "beta"]


def test_run_size_is_one_sentence():
    assert describe_run_size([made.record(seed=seed) for seed in (1, 0)]) == (
        "fashion-mini: 3,000 private, 1,500 auxiliary, 300 auxiliary-val, 900 test images; "
        "6 epochs at most; seeds 0, 1."
    )
    assert (
        describe_run_size([made.failed(data={}, config=made.config([], training=None))])
        == "fashion-mini: sizes not recorded; seed 0."
    )


def test_no_records_make_no_summarize():
    assert summarize([]) == []


def test_adversaries_are_ordered_by_knowledge_then_queries():
    found = summarize([full.record()])
    assert [(row.knowledge, row.queries) for row in found] == ADVERSARIES


def test_a_row_of_a_subset_says_how_many_and_compares_on_these():
    record = full.record()
    row = summarize([record])[-1]
    measure = row.measures["psnr"]["private"]
    assert (measure.n, measure.total, measure.partial) == (5, 60, True)
    assert row.partial == {"private": (5, 60), "test": (4, 40)}
    scores = full.scores()
    shared = full.SUBSET["private"]
    expected = scores["search/private/psnr"].astype(float) - scores["ridge-conv/private/psnr"].astype(float)[shared]
    assert measure.to_black_box.mean == pytest.approx(expected.mean())
    assert measure.to_black_box.n == 5
    assert measure.to_black_box.ci95 == pytest.approx((expected.mean() - 0.25, expected.mean() + 0.25))


def test_the_floor_of_a_subset_is_of_the_same_images_or_missing():
    record = full.record()
    without = summarize([record])[-1].measures["psnr"]["private"]
    assert (without.floor, without.floor_names, without.leak) == (None, (), None)
    found = summarize([record], {record.case.slug: full.pictures()})[-1].measures["psnr"]["private"]
    expected = full.scores()["mean-image/private/psnr"].astype(float)[full.SUBSET["private"]].mean()
    everywhere = summarize([record])[0].measures["psnr"]["private"].floor
    assert found.floor == pytest.approx(expected)
    assert abs(expected - everywhere) > 0.1
    assert found.leak == pytest.approx(found.score.mean - expected)


def test_rows_of_all_images_need_no_pictures():
    record = full.record()
    for with_pictures in ({}, {record.case.slug: full.pictures()}):
        measure = summarize([record], with_pictures)[0].measures["psnr"]["private"]
        assert measure.floor == pytest.approx(record.outcome.attack("mean-image").scores["private"]["psnr"].mean)
        assert (measure.partial, measure.to_black_box) == (False, None)


def test_intervals_are_by_the_bootstrap_where_files_hold_the_scores():
    record = full.record()
    values = full.scores()["ridge-conv/private/psnr"].astype(float)
    assert summarize([record], {record.case.slug: full.pictures()})[0].measures["psnr"][
        "private"
    ].ci95 == bootstrap_interval(values)
    summary = record.outcome.attack("ridge-conv").scores["private"]["psnr"]
    assert summarize([record])[0].measures["psnr"]["private"].ci95 == summary.ci95


def test_a_control_is_never_chosen():
    wrong = {"black-box": {"psnr": "ridge shuffled", "ssim": "mean-image", "id@1": "ridge"}}
    record = full.record(chosen=wrong)
    (row,) = summarize([record])
    assert row.chosen == {"psnr": (), "ssim": (), "id@1": ("ridge",)}
    assert row.measures["psnr"]["private"].score is None
    assert find_chosen_attack(record, BLACK_BOX, "psnr") is None
    chosen = {name for row in summarize([full.record()]) for names in row.chosen.values() for name in names}
    assert "ridge shuffled" not in chosen
