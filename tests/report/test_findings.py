"""The sentences that a run ends with: each figure from the records, no sentence that they do not support."""

import pytest

from sparseguard.record import Flag
from sparseguard.report import describe_findings
from support import class_records as classes
from support import many_defenses as many
from support import synthetic_records as made


def test_the_leak_without_a_defense_and_the_best_defense_are_named():
    records = [made.record(), made.record("sca", shift=-4.0, accuracy=0.7), made.record("low-rank", shift=-6.0)]
    base, best, checks = describe_findings([*records, made.record("cem", shift=-3.0)])
    assert base == (
        "split: without a defense, black-box attacks reconstruct private images with 20.0 dB PSNR, 8.0 dB above the "
        "best floor, which needs no inversion, and re-identify 90% of them among 2,000 (chance: 0.05%)."
    )
    assert best == (
        "split: sca leaks least of 2 defenses: black-box attacks reconstruct private images with 16.0 dB PSNR, 4.0 dB "
        "above the best floor, which needs no inversion, and re-identify 90% of them among 2,000 (chance: 0.05%); "
        "accuracy 0.700, without a defense 0.800."
    )
    assert checks == "The checks of the evaluation raised no flag."


def test_a_defense_that_leaks_no_less_is_not_praised():
    assert describe_findings([made.record(), made.record("sca", shift=1.0)])[1] == (
        "split: no defense leaks less than none."
    )


def test_a_score_below_the_floor_says_so():
    assert "1.0 dB below the best floor" in describe_findings([made.record(shift=-9.0)])[0]


def test_class_inversion_names_the_range_over_evaluators():
    first, second, _ = describe_findings([classes.record(), classes.record("sca")])
    assert first == (
        "Plug & Play: without a defense, evaluators put 70% to 80% of the images that plug-and-play makes into the "
        "attacked class."
    )
    assert second == "Plug & Play: no defense lowers this."


@pytest.mark.parametrize(
    ("records", "sentences"),
    [
        ([], ["The checks of the evaluation raised no flag."]),
        ([made.failed()], ["The checks of the evaluation raised no flag.", "1 of 1 cases failed."]),
        ([many.record("sca")], ["The checks of the evaluation raised no flag."]),
        ([made.record(chosen={})], ["The checks of the evaluation raised no flag."]),
    ],
    ids=["nothing", "failed", "no undefended target", "no attack chosen"],
)
def test_sentences_without_figures_are_left_out(records, sentences):
    assert describe_findings(records) == sentences


def test_flags_are_counted_by_what_the_recipe_expects():
    expected, other = Flag(name="a", message="m", expected="e"), Flag(name="b", message="m")
    for flags, words in (
        ([expected], "raised 1 flag; the recipe expects all of them."),
        ([expected, other], "raised 2 flags; the recipe does not expect 1."),
    ):
        assert describe_findings([made.record(flags=flags)])[-1].endswith(words)
