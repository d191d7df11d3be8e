import json
import statistics

import pytest

from sparseguard.record import SCHEMA_VERSION, Flag
from sparseguard.report import rows, scale, to_json
from support import synthetic_records as made


def test_one_seed_gives_the_records_own_numbers():
    (row,) = rows([made.record()])
    psnr = row.measures["psnr"]
    assert psnr["private"].leaked.mean == 20.0
    assert psnr["private"].leaked.std is None
    assert (psnr["private"].floor, psnr["private"].floor_names, psnr["private"].leak) == (12.0, ("class-mean",), 8.0)
    assert (psnr["test"].leaked.mean, psnr["test"].floor, psnr["test"].leak) == (19.0, 11.0, 8.0)
    assert row.chosen == {"psnr": ("ridge",), "ssim": ("ridge-conv",), "id@1": ("ridge",)}
    assert row.measures["ssim"]["private"].leaked.mean == 0.6
    assert row.measures["ssim"]["private"].floor_names == ("mean-image",)
    assert row.measures["id@1"]["test"].leak == pytest.approx(0.88)
    assert (row.status, row.seeds, row.knowledge, row.dimension) == ("ok", 1, "black-box", 500)


def test_seeds_are_averaged_with_their_spread():
    (row,) = rows([made.record(seed=seed, accuracy=0.8 + 0.01 * seed, shift=3.0 * seed) for seed in (0, 1, 2)])
    private = row.measures["psnr"]["private"]
    assert row.seeds == 3
    assert row.accuracy.mean == pytest.approx(0.81)
    assert row.accuracy.std == pytest.approx(0.01)
    assert private.leaked.mean == pytest.approx(23.0)
    assert private.leaked.std == pytest.approx(statistics.stdev([20.0, 23.0, 26.0]))
    assert private.leak == pytest.approx(11.0)
    assert row.effective_rank == pytest.approx(43.0)


def test_each_seed_counts_with_its_own_chosen_attacker():
    other = {"black-box": {"psnr": "ridge-conv", "ssim": "ridge-conv", "id@1": "ridge"}}
    (row,) = rows([made.record(seed=0), made.record(seed=1, chosen=other)])
    assert row.measures["psnr"]["private"].leaked.mean == pytest.approx((20.0 + 18.0) / 2)
    assert row.chosen["psnr"] == ("ridge", "ridge-conv")


def test_each_knowledge_level_has_its_row():
    levels = {"white-box": {"psnr": "ridge"}, "black-box": {"psnr": "ridge-conv"}}
    found = rows([made.record(chosen=levels)])
    assert [row.knowledge for row in found] == ["black-box", "white-box"]
    assert [row.measures["psnr"]["private"].leaked.mean for row in found] == [18.0, 20.0]
    assert found[0].measures["ssim"]["private"].leaked is None


def test_private_minus_test_needs_equal_numbers_for_identification():
    (row,) = rows([made.record()])
    assert row.memorization == {"psnr": 1.0, "ssim": 0.0, "id@1": None}
    assert row.memorization_of_floors == {"psnr": 1.0, "ssim": 0.0, "id@1": None}
    (row,) = rows([made.record(pools={"private": 900, "test": 900})])
    assert row.memorization["id@1"] == 0.0


def test_a_missing_part_is_absent_not_zero():
    (row,) = rows([made.record(attacks=made.attacks(parts={"private": 0.0}))])
    assert list(row.measures["psnr"]) == ["private"]
    assert row.memorization["psnr"] is None


def test_a_leak_below_the_floor_is_negative():
    (row,) = rows([made.record(shift=-9.0)])
    assert row.measures["psnr"]["private"].leak == -1.0


def test_without_floors_there_is_a_score_but_no_leak():
    attackers = [one for one in made.attacks() if not one.floor]
    (row,) = rows([made.record(attacks=attackers)])
    private = row.measures["psnr"]["private"]
    assert (private.leaked.mean, private.floor, private.floor_names, private.leak) == (20.0, None, (), None)


def test_a_failed_case_keeps_its_row_and_reason():
    none, sca = rows([made.failed("sca lambd=0.5"), made.record("none")])
    assert (none.defense, sca.defense, sca.status, sca.seeds) == ("none", "sca lambd=0.5", "failed", 0)
    assert sca.failures[0].reason == "fit: TrainingError: the loss is not finite at epoch 3."


def test_a_failed_seed_leaves_the_others_numbers():
    (row,) = rows([made.record("sca", seed=0), made.failed("sca", seed=1)])
    assert (row.status, row.seeds, row.accuracy.mean) == ("ok", 1, 0.8)
    assert [one.seed for one in row.failures] == [1]


def test_flags_are_told_once_with_what_the_recipe_expects():
    flags = [Flag(name="low-accuracy", message="m", expected="Few epochs."), Flag(name="below-floor", message="m")]
    (row,) = rows([made.record(seed=0, flags=flags), made.record(seed=1, flags=flags[:1])])
    assert [(flag.name, flag.expected) for flag in row.flags] == [
        ("low-accuracy", "Few epochs."),
        ("below-floor", None),
    ]


def test_order_is_threat_then_the_recipes_defenses():
    order = ["none", "zeta", "alpha"]
    shuffled = [
        made.record(defense, threat, order=order) for threat in ("split", "end-to-end") for defense in sorted(order)
    ]
    found = [(row.threat, row.defense) for row in rows(shuffled)]
    assert found == [(threat, defense) for threat in ("end-to-end", "split") for defense in order]


def test_without_an_order_none_comes_first():
    found = [row.defense for row in rows([made.record(defense) for defense in ("beta", "alpha", "none")])]
    assert found == ["none", "alpha", "beta"]


def test_scale_is_one_sentence():
    assert scale([made.record(seed=seed) for seed in (1, 0)]) == (
        "fashion-mini: 3,000 private, 1,500 auxiliary, 300 auxiliary-val, 900 test images; "
        "6 epochs at most; seeds 0, 1."
    )
    assert scale([made.failed(data={}, config=made.config([], training=None))]) == "fashion-mini: sizes not recorded; seed 0."


def test_json_round_trips():
    records = [made.record(seed=seed, flags=[Flag(name="a", message="b")]) for seed in (0, 1)] + [made.failed()]
    plain = to_json(records)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["schema_version"] == SCHEMA_VERSION
    assert plain["rows"][0]["measures"]["psnr"]["private"]["leak"] == 8.0
    assert plain["rows"][1]["failures"][0]["seed"] == 0


def test_no_records_make_no_rows():
    assert rows([]) == []
    assert to_json([])["rows"] == []
