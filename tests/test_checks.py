"""Every check raises for what it watches, and for nothing else."""

import math

import pytest

from sparseguard.checks import CHECKS, Evidence, raised
from sparseguard.record import Attacker, Leaked, Summary, TargetFacts


def summary(mean):
    return Summary(mean=mean, std=1.0, ci95=(mean, mean), quantiles=(mean, mean, mean), n=9)


def attacker(name, psnr, *, change=None, outside=0.0, floor=False, ssim=0.5, **settings):
    return Attacker(
        name=name,
        settings={"name": name, **settings},
        knowledge="nothing" if floor else "outputs",
        floor=floor,
        parameter_change=change,
        outside_range=outside,
        notes={},
        scores={part: {"psnr": summary(psnr), "ssim": summary(ssim)} for part in ("private", "attacker_val")},
    )


def evidence(
    *,
    mean=10.0,
    ridge=20.0,
    conv=25.0,
    chosen="ridge-conv",
    noise=0.0,
    randomizes=False,
    inactive=None,
    accuracy=0.9,
    after="a" * 64,
    extra=(),
    **conv_settings,
):
    return Evidence(
        target=TargetFacts(
            accuracy=accuracy,
            accuracy_n=90,
            majority_rate=0.1,
            parameters=5,
            epochs=3,
            best_epoch=2,
            state_hash="a" * 64,
            state_hash_after=after,
        ),
        leaked=Leaked(
            shape=(4,), dimension=4, effective_rank=3.0, noise_ratio=noise, queries={"public": 8, "private": 4}
        ),
        attackers=[
            attacker("mean-image", mean, floor=True),
            attacker("ridge", ridge, change=3.0),
            attacker("ridge-conv", conv, **{"change": 0.2, **conv_settings}),
            *extra,
        ],
        chosen={"outputs": {"psnr": chosen, "ssim": "ridge"}},
        randomizes=randomizes,
        inactive=inactive,
    )


BROKEN = {
    "target-changed": ({"after": "b" * 64}, "bbbb"),
    "attacker-did-not-learn": ({"change": 0.0}, "ridge-conv"),
    "no-better-than-mean": ({"mean": 25.0}, "mean image has 25.00 dB"),  # equal is not above
    "worse-than-ridge": ({"ridge": 25.5}, "ridge has 25.50 dB"),
    "defense-inactive": ({"randomizes": True, "noise": 0.0}, "two observations"),
    "out-of-range": ({"outside": 0.25}, "ridge-conv: by up to 0.25"),
    "not-finite": ({"ssim": math.nan}, "ridge-conv: private ssim"),
    "target-at-majority": ({"accuracy": 0.1}, "0.100"),  # equal is not above
}


def test_every_check_is_tried_here():
    assert set(BROKEN) == set(CHECKS)


def test_sound_evidence_raises_nothing():
    assert raised(evidence()) == {}
    assert raised(evidence(randomizes=True, noise=0.1)) == {}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_check_raises_for_what_it_watches_and_no_other_does(name):
    changes, message = BROKEN[name]
    found = raised(evidence(**changes))
    assert set(found) == {name}
    assert message in found[name]


@pytest.mark.parametrize("change", [-0.0, math.nan])
def test_no_movement_of_any_kind_counts_as_learning(change):
    assert set(raised(evidence(change=change))) == {"attacker-did-not-learn"}


def test_an_attacker_without_parameters_has_nothing_to_learn():
    assert raised(evidence(change=None)) == {}


def test_a_defense_s_own_account_is_passed_on():
    assert raised(evidence(inactive="layer 1 is dead")) == {"defense-inactive": "layer 1 is dead"}


def test_the_chosen_attacker_is_compared_not_the_others():
    weak = attacker("weak", 5.0)
    assert raised(evidence(extra=(weak,))) == {}
    assert set(raised(evidence(extra=(weak,), chosen="weak"))) == {"no-better-than-mean", "worse-than-ridge"}


def test_as_good_as_ridge_is_not_worse():
    assert raised(evidence(chosen="ridge")) == {}


def test_without_floors_there_is_nothing_to_compare_with():
    full = evidence(conv=1.0)
    alone = Evidence(
        target=full.target,
        leaked=full.leaked,
        attackers=full.attackers[2:],
        chosen=full.chosen,
        randomizes=False,
        inactive=None,
    )
    assert raised(alone) == {}


def test_rounding_outside_the_range_is_let_pass():
    assert raised(evidence(outside=1e-7)) == {}
    assert set(raised(evidence(outside=2e-6))) == {"out-of-range"}


def test_docs_of_every_check_are_written():
    for check in CHECKS.values():
        assert check.raised_when
        assert check.meaning
