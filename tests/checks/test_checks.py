"""Every check raises for what it watches, and for nothing else."""

import math

import pytest

from sparseguard.checks import CHECKS, Evidence, controls, find_flags, target
from sparseguard.checks import attacks as decoders
from sparseguard.checks.evidence import late_gain
from sparseguard.record import (
    AttackedClass,
    Choice,
    ClassInversionAttack,
    ClassScore,
    Comparison,
    Conditions,
    EvaluatorFacts,
    FeatureFacts,
    FeatureInversionAttack,
    PriorFacts,
    Queries,
    Summary,
    TargetFacts,
    TrainingCurves,
)

COSINE = "gradient_cosine_implicit"
RISING = [0.3, 0.5, 0.6, 0.7, 0.8]


def summary(mean, std=1.0, n=100):
    return Summary(mean=mean, std=std, ci95=(mean, mean), quantiles=(mean, mean, mean), n=n)


def attack(
    name, psnr, *, component=None, knowledge="black-box", floor=False, test=None, ssim=0.5, conditions=None, **facts
):
    conditions = conditions or Conditions()
    plain = conditions.model_copy(update={"queries": 1, "max_images": None}) == Conditions()
    splits = {"private": psnr, "auxiliary_val": psnr, "test": psnr if test is None else test}
    return FeatureInversionAttack(
        name=name,
        attack=component or name,
        conditions=conditions,
        queries=conditions.queries,
        eligible=not floor and plain,
        knowledge="nothing" if floor else knowledge,
        floor=floor,
        scores={split: {"psnr": summary(value), "ssim": summary(ssim)} for split, value in splits.items()},
        **{"parameter_change": None, "outside_range": 0.0, **facts},
    )


def choices(knowledge, queries=1, **attacks):
    return [
        Choice(knowledge=knowledge, queries=queries, metric=metric, attack=name) for metric, name in attacks.items()
    ]


def pair(kind, first, second, mean, *, half=0.02, metric="psnr", split="private"):
    interval = (mean - half, mean + half)
    return Comparison(
        kind=kind, first=first, second=second, metric=metric, split=split, mean=mean, ci95=interval, n=100
    )


def prior(**changes):
    facts = {
        "name": "faces", "kind": "style", "fingerprint": "f", "shape": [1, 28, 28], "num_ws": 8, "w_dim": 4,
        "trained_on": "faces", "training_images": 100, "classes": ["a"], "overlap": {"auxiliary": 100},
    }  # fmt: skip
    return PriorFacts(**{**facts, **changes})


def class_attack(*, prior_facts=None, confidence=0.9, best_start=0.6, diagnostics=None, **changes):
    own = {"diversity": 0.7, "clamped_fraction": 0.0, "gradient_norm": 0.3, COSINE: 0.9, **(diagnostics or {})}
    own = {"samples_far_from_private": 0.2, "samples_far_from_auxiliary": 0.2, **own}
    facts = {
        "name": "pnp", "attack": "plug-and-play",
        "knowledge": "white-box", "control": False, "prior": prior(**(prior_facts or {})),
        "classes": {
            name: AttackedClass(
                confidence=0.5,
                augmented_confidence=0.5,
                start_confidence=0.4,
                best_confidence=confidence,
                best_start_confidence=best_start,
            )
            for name in ("b", "c")
        },
        "scores": {}, "diagnostics": own,
    }  # fmt: skip
    return ClassInversionAttack(**{**facts, **changes})


def accuracy_scores(value, other_class=None):
    score = ClassScore(value=value, ci95=(0, 1), n=100, other_class=other_class)
    return {"attack accuracy@1 (one)": score, "AUC (one)": score}


def control(accuracy):
    return class_attack(name="noise", control=True, prior=None, scores=accuracy_scores(accuracy))


def evidence(
    *,
    pnp=None,
    fooled=0.3,
    other_class=0.0,
    evaluator=0.91,
    mean=10.0,
    floor=12.0,
    ridge=20.0,
    conv=25.0,
    conv_facts=None,
    weights=25.5,
    weights_index=(3, 5),
    weights_facts=None,
    gradient_norm=0.4,
    cosine=0.9,
    residual=0.2,
    shuffled=-9.0,
    half=-0.2,
    repeated=0.5,
    informed=0.4,
    chosen="conv",
    noise=0.3,
    randomizes=True,
    inactive=None,
    accuracy=0.9,
    history=(0.5, 0.7, 0.85, 0.9, 0.9),
    after="a" * 64,
    duplicates=None,
    extra=(),
    without=(),
    other=(),
):
    """A case that every check has something to look at in, and that is sound."""
    all_of_them = [
        attack("floor", floor, floor=True),
        attack("mean-image", mean, floor=True),
        attack("shuffled", ridge + shuffled, component="ridge", conditions=Conditions(control="shuffled-features")),
        attack("half", ridge + half, component="ridge", conditions=Conditions(auxiliary_fraction=0.5)),
        attack("repeated", conv + repeated, component="ridge", conditions=Conditions(queries=8)),
        attack("ridge", ridge, parameter_change=3.0),
        attack(
            "conv",
            conv,
            **{
                "parameter_change": 0.2,
                "curves": {"auxiliary_val_psnr": [20, 22, 24, 25, 25.0, 25.05]},
                **(conv_facts or {}),
            },
        ),
        attack(
            "search",
            weights,
            knowledge="white-box",
            indices={"private": list(weights_index)} if weights_index else {},
            diagnostics={
                "gradient_norm": gradient_norm,
                COSINE: cosine,
                "gradient_cosine_straight_through": 0.1,
            },
            residuals={"private": summary(residual)},
            **(weights_facts or {}),
        ),
        *extra,
    ]
    return Evidence(
        target=TargetFacts(
            accuracy=accuracy,
            accuracy_n=90,
            majority_rate=0.1,
            parameters=5,
            epochs=5,
            best_epoch=4,
            history=TrainingCurves(held_out_accuracy=list(history)),
            state_hash="a" * 64,
            state_hash_after=after,
        ),
        features=FeatureFacts(
            shape=(4,), dimension=4, effective_rank=3.0, noise_ratio=noise, queries=Queries(auxiliary=8, private=4)
        ),
        attacks=[attack for attack in all_of_them if attack.name not in without],
        chosen=[
            *choices("black-box", psnr=chosen, ssim="ridge"),
            *choices("black-box", 8, psnr="repeated", ssim="repeated"),
            *choices("white-box", psnr="search", ssim="search"),
        ],
        comparisons=[
            pair("control", "shuffled", "ridge", shuffled),
            pair("control", "half", "ridge", half),
            pair("control", "repeated", "ridge", 3.0),
            pair("knowledge", "repeated", "conv", repeated),
            pair("knowledge", "search", "conv", informed),
            *other,
        ],
        randomizes=randomizes,
        inactive=inactive,
        duplicates=duplicates or {},
        class_attacks=[
            class_attack(**{"scores": accuracy_scores(0.9, other_class), **(pnp or {})}),
            control(fooled),
        ],
        evaluators={"one": EvaluatorFacts(accuracy=evaluator)},
    )


BROKEN = {
    "target-changed": ({"after": "b" * 64}, "bbbb"),
    "target-at-majority": ({"accuracy": 0.1}, "0.100"),  # equal is not above
    "target-not-converged": ({"history": RISING}, "rose by 0.100 to 0.800"),
    "defense-inactive": ({"inactive": "layer 1 is dead"}, "layer 1 is dead"),
    "duplicates-across-parts": ({"duplicates": {"test": 2, "tuning": 1}}, "2 in test, 1 in tuning"),
    "attacker-did-not-learn": ({"conv_facts": {"parameter_change": 0.0}}, "conv"),
    "still-improving": (
        {"conv_facts": {"curves": {"auxiliary_val_psnr": [20, 21, 22, 23, 24, 24.5]}}},
        "conv: gained 0.50 dB",
    ),
    "more-data-helps": ({"half": -0.5}, "half minus ridge: -0.50 dB (95 %: -0.52 to -0.48, 100 images)"),
    "no-better-than-mean": ({"mean": 25.0}, "mean image has 25.00 dB"),  # equal is not above
    "at-its-floor": ({"floor": 24.95}, "conv: 25.00 dB, less than 0.1 dB above floor with 24.95 dB"),
    "worse-than-ridge": ({"ridge": 25.2}, "conv: 25.00 dB on private images, ridge has 25.20 dB"),
    "shuffled-as-good": ({"shuffled": -0.01}, "shuffled minus ridge: -0.01 dB"),
    "repeats-no-better": ({"repeated": 0.01}, "repeated minus conv: +0.01 dB"),
    "hidden-gradients": ({"informed": -0.1}, "search minus conv: -0.10 dB"),
    "gradient-cosine-low": ({"cosine": 0.45}, "search: cosine 0.45"),
    "optimizer-stuck": ({"residual": 0.4}, "search: median residual 0.400, above 0.212, and 25.50 dB, below 30"),
    "memorization": ({"conv_facts": {"test": 24.5}}, "conv: 25.00 dB on private images, 24.50 dB on test images"),
    "unseen-leak-more": ({"conv_facts": {"test": 25.5}}, "conv: 25.50 dB on test images, 25.00 dB on private images"),
    "prior-overlap": (
        {"pnp": {"prior_facts": {"overlap": {"auxiliary_val": 5, "test": 3}}}},
        "pnp: the prior 'faces' was trained on images of the data set: 3 of test",
    ),
    "prior-unknown": ({"pnp": {"prior_facts": {"overlap": None}}}, "pnp: what the prior 'faces' was trained on"),
    "prior-knows-classes": ({"pnp": {"prior_facts": {"known_classes": ["b"]}}}, "pnp: the prior 'faces' has seen b"),
    "prior-unrelated": (
        {"pnp": {"diagnostics": {"samples_far_from_private": 0.9, "samples_far_from_auxiliary": 0.8}}},
        "pnp: 90% of the prior's samples are far from all private images, 80% from all of the attacker's",
    ),
    "confidence-not-raised": (
        {"pnp": {"confidence": 0.6}},  # equal is not above
        "pnp: confidence 0.600 of the best image, 0.600 of the best candidate",
    ),
    "mode-collapse": (
        {"pnp": {"diagnostics": {"diversity": 0.05}}},
        "pnp: images of a class differ 0.050 times as much",
    ),
    "loss-at-clamp": (
        {"pnp": {"diagnostics": {"clamped_fraction": 0.25}}},
        "pnp: the loss of 25% of the images is at its clamp",
    ),
    "evaluators-fooled": (
        {"fooled": 0.75},  # two classes are attacked
        "noise: attack accuracy@1 (one) 0.75 of images without a prior, surely above 0.60",
    ),
    "evaluators-weak": ({"evaluator": 0.8}, "one: accuracy 0.800, the target's is 0.900"),
    "out-of-range": ({"conv_facts": {"outside_range": 0.25}}, "conv: by up to 0.25"),
    "not-finite": ({"conv_facts": {"ssim": math.nan}}, "conv: private ssim"),
}

IMPLIED = {"no-better-than-mean": {"at-its-floor"}}  # the mean image is a floor


def found(**changes):
    return set(find_flags(evidence(**changes)))


def test_every_check_is_tried_here():
    assert set(BROKEN) == set(CHECKS)


def test_sound_evidence_raises_nothing():
    assert find_flags(evidence()) == {}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_check_raises_for_what_it_watches_and_no_other_does(name):
    changes, message = BROKEN[name]
    flags = find_flags(evidence(**changes))
    assert set(flags) == {name} | IMPLIED.get(name, set())
    assert message in flags[name]


def test_an_attack_on_classes_with_sure_candidates_need_not_raise_the_confidence():
    assert found(pnp={"confidence": 0.995, "best_start": 0.999}) == set()


def test_evaluators_must_not_see_the_class_in_images_of_another():
    flags = find_flags(evidence(other_class=0.8))
    assert set(flags) == {"evaluators-fooled"}
    assert "0.80 of images of another class" in flags["evaluators-fooled"]


def test_a_share_that_may_be_chance_fools_nobody():
    assert found(fooled=0.65) == set()  # of 100 images, the limit is 0.6


def test_samples_near_one_of_the_sets_are_related():
    assert found(pnp={"diagnostics": {"samples_far_from_private": 0.9}}) == set()


def test_gradients_of_attacks_on_classes_are_looked_at_too():
    assert found(pnp={"diagnostics": {"gradient_norm": 0.0}}) == {"hidden-gradients"}
    assert found(pnp={"diagnostics": {COSINE: 0.1}}) == {"gradient-cosine-low"}


def test_a_prior_that_keeps_its_classes_to_itself_may_know_the_attacked_ones():
    assert found(pnp={"prior_facts": {"classes": None}}) == {"prior-knows-classes"}


def test_priors_of_attacks_on_images_are_looked_at_too():
    weak = attack("with a prior", 5.0, prior=prior(overlap=None))
    assert found(extra=(weak,)) == {"prior-unknown"}


@pytest.mark.parametrize("change", [-0.0, math.nan])
def test_no_movement_of_any_kind_counts_as_learning(change):
    assert found(conv_facts={"parameter_change": change}) == {"attacker-did-not-learn"}


def test_an_attacker_without_parameters_has_nothing_to_learn():
    assert found(conv_facts={"parameter_change": None}) == set()


def test_noise_that_is_not_there_is_noticed_and_noise_nobody_promised_is_not_missed():
    assert found(noise=0.0, residual=0.009) == {"defense-inactive"}
    assert found(noise=0.0, residual=0.009, randomizes=False) == set()


def test_the_chosen_attacker_is_compared_not_the_others():
    weak = attack("weak", 5.0)
    assert found(extra=(weak,)) == set()
    assert found(extra=(weak,), chosen="weak") == {"no-better-than-mean", "at-its-floor", "worse-than-ridge"}


def test_as_good_as_ridge_is_not_worse():
    assert found(chosen="ridge") == set()


@pytest.mark.parametrize(
    "other",
    [
        attack("other", 40.0, component="ridge", conditions=Conditions(queries=4)),
        attack("other", 40.0, component="ridge", conditions=Conditions(auxiliary_fraction=0.5)),
        attack("other", 40.0, component="ridge", conditions=Conditions(control="untrained-target")),
        attack("other", 40.0, component="ridge", conditions=Conditions(max_images=2), indices={"private": [1, 2]}),
    ],
    ids=["queries", "fraction", "control", "images"],
)
def test_ridge_under_another_setting_is_no_measure(other):
    assert found(without=("ridge",), extra=(other,)) == set()
    assert found(without=("ridge",), extra=(other, attack("plain", 30.0, component="ridge"))) == {"worse-than-ridge"}


def test_means_over_few_images_are_not_held_against_means_over_all():
    low = {"weights": 9.0, "residual": 0.1}
    assert found(**low) == set()
    assert found(**low, weights_facts={"test": 1.0}) == set()
    whole = {"no-better-than-mean", "at-its-floor", "worse-than-ridge"}
    assert found(**low, weights_index=()) == whole
    assert found(**low, weights_index=(), weights_facts={"test": 1.0}) == whole | {"memorization"}


def test_without_floors_ridge_and_controls_there_is_nothing_to_compare_with():
    full = evidence(conv=1.0)
    alone = Evidence(
        target=full.target,
        features=full.features,
        attacks=[attack for attack in full.attacks if attack.name == "conv"],
        chosen=choices("black-box", psnr="conv"),
        comparisons=[],
        randomizes=False,
        inactive=None,
        duplicates={},
    )
    assert find_flags(alone) == {}


def test_rounding_outside_the_range_is_let_pass():
    assert found(conv_facts={"outside_range": 1e-7}) == set()
    assert found(conv_facts={"outside_range": 2e-6}) == {"out-of-range"}


@pytest.mark.parametrize(
    ("history", "flags"),
    [
        ([], set()),  # nothing is known
        ([0.1], set()),
        ([0.5], {"target-not-converged"}),  # an epoch ago it knew nothing
        ([0.5, 0.9, 0.905], set()),
        ([0.5, 0.9, 0.92], {"target-not-converged"}),
        ([0.92, 0.5, 0.9], set()),  # the best epoch is the first one
        ([0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.9, 0.8], {"target-not-converged"}),  # 2 of 10 are the last fifth
        ([0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.9, 0.8, 0.9], set()),
    ],
)
def test_training_is_judged_by_its_last_fifth(history, flags):
    assert found(history=history) == flags


def test_late_gain_is_of_the_best_so_far():
    assert late_gain([]) == late_gain([3.0]) == 0
    assert late_gain([1.0, 2.0]) == 1
    assert late_gain([5.0, 2.0, 4.0]) == 0
    assert late_gain([0.0, *range(1, 11)]) == 2


def test_only_chosen_decoders_have_to_be_finished():
    assert found(extra=(attack("other", 20.0, curves={"auxiliary_val_psnr": [1, 2]}),)) == set()
    assert found(conv_facts={"curves": {"auxiliary_val_psnr": [20, 25, 24]}}) == set()
    assert found(conv_facts={"curves": {"extra": {"loss": [1, 2]}}}) == set()


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"shuffled": -0.05}, set()),  # surely worse, if little
        ({"shuffled": 0.5}, {"shuffled-as-good"}),
        ({"repeated": 0.05}, set()),
        ({"repeated": -0.3}, {"repeats-no-better"}),
        ({"repeated": -0.3, "randomizes": False}, set()),
        ({"informed": -0.01}, set()),  # may be as good
        ({"informed": 0.0}, set()),
        ({"half": -0.25}, set()),
        ({"half": 0.5}, set()),
    ],
)
def test_differences_count_when_they_are_sure(changes, flags):
    assert found(**changes) == flags


@pytest.mark.parametrize("elsewhere", [{"metric": "ssim"}, {"split": "test"}])
def test_other_metrics_and_parts_are_not_compared(elsewhere):
    other = [
        pair("control", "shuffled", "ridge", 1.0, **elsewhere),
        pair("control", "half", "ridge", -1.0, **elsewhere),
        pair("knowledge", "repeated", "conv", -1.0, **elsewhere),
        pair("knowledge", "search", "conv", -1.0, **elsewhere),
    ]
    assert found(other=other) == set()


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(auxiliary_fraction=0.5, control="untrained-target"),
        Conditions(auxiliary_fraction=0.5, dataset="mnist"),
        Conditions(auxiliary_fraction=0.25),
        Conditions(control="untrained-target"),
        Conditions(dataset="mnist"),
    ],
)
def test_other_controls_may_be_worse(conditions):
    control = attack("control", 12.0, component="ridge", conditions=conditions)
    assert found(extra=(control,), other=[pair("control", "control", "ridge", -8.0)]) == set()


def test_repeats_are_judged_between_attackers_that_know_the_same():
    informed = attack("informed", 25.0, knowledge="white-box", conditions=Conditions(queries=8))
    assert found(extra=(informed,), other=[pair("knowledge", "informed", "conv", 0.0)]) == set()


def test_gradients_of_zero_are_noticed_without_a_comparison():
    assert "search: gradients have norm 0" in find_flags(evidence(gradient_norm=0.0))["hidden-gradients"]
    control = attack(
        "control",
        20.0,
        knowledge="white-box",
        conditions=Conditions(control="untrained-target"),
        diagnostics={"gradient_norm": 0.0, COSINE: 0.0},
        residuals={"private": summary(0.9)},
    )
    assert found(extra=(control,)) == set()


def test_a_search_that_reached_features_image_or_noise_is_not_stuck():
    assert found(residual=0.4, weights=31.0) == set()
    assert found(residual=0.009, noise=0.001) == set()
    assert found(residual=0.011, noise=0.001) == {"optimizer-stuck"}
    often = {"conditions": Conditions(queries=8)}  # a third as noisy
    assert found(residual=0.2, weights_facts=often) == {"optimizer-stuck"}


@pytest.mark.parametrize(
    ("difference", "std", "n", "flags"),
    [
        (0.25, 1.0, 1000, {"memorization"}),
        (0.15, 1.0, 10000, set()),  # sure but small
        (0.5, 3.0, 100, set()),  # large but not sure
        (-0.25, 1.0, 1000, {"unseen-leak-more"}),
        (-0.15, 1.0, 10000, set()),
        (-0.5, 3.0, 100, set()),
        (0.5, 0.0, 100, {"memorization"}),
    ],
)
def test_private_and_test_are_told_apart_by_a_large_and_sure_difference(difference, std, n, flags):
    plain = attack("other", 25.0)
    scores = {
        part: {"psnr": summary(value, std, n), "ssim": summary(0.5)}
        for part, value in {"private": 25.0, "test": 25.0 - difference}.items()
    }
    case = {"extra": (plain.model_copy(update={"scores": scores}),), "chosen": "other"}
    assert found(**case) == flags


def test_in_the_paper_s_layout_there_is_no_test_part_to_compare_with():
    plain = attack("other", 25.0, test=1.0)
    scores = {part: values for part, values in plain.scores.items() if part != "test"}
    assert found(extra=(plain.model_copy(update={"scores": scores}),), chosen="other") == set()


def test_a_message_names_every_attacker_it_holds_for():
    message = find_flags(evidence(mean=25.6, weights_index=()))["no-better-than-mean"]
    assert [part.split(":")[0] for part in message.split("; ")] == ["repeated", "conv", "search"]


def test_thresholds_are_those_of_the_docs():
    said = {name: check.raised_when for name, check in CHECKS.items()}
    for name, threshold in {
        "target-not-converged": target.TARGET_GAIN,
        "still-improving": decoders.STILL_GAINING,
        "at-its-floor": decoders.ABOVE_FLOOR,
        "memorization": decoders.APART,
        "unseen-leak-more": decoders.APART,
        "more-data-helps": controls.LOST,
        "gradient-cosine-low": controls.AGREE,
        "optimizer-stuck": controls.RESIDUAL,
    }.items():
        assert f"{threshold} " in f"{said[name]} ", name


def test_docs_of_every_check_are_written():
    for check in CHECKS.values():
        assert check.raised_when
        assert check.meaning
