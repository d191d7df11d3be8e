"""The verdict's thresholds, on records made up by hand."""

import pytest

from sparseguard.record import Comparison, Flag
from sparseguard.report import verdict
from support.synthetic_records import FLOORS, attack, record

CHANCE = 1 / 2000
"""Of the made-up records."""


def assess(psnr: float, identified: float, **changes):
    """Return the verdict on one attack of so many dB above the best floor, 12 dB."""
    floors = [attack(name, means, True) for name, means in FLOORS.items()]
    one = attack("ridge", {"psnr": psnr, "ssim": 0.5, "id@1": identified}, False)
    chosen = {"black-box": dict.fromkeys(("psnr", "ssim", "id@1"), "ridge")}
    return verdict(record(attacks=[*floors, one], chosen=chosen, **changes))


@pytest.mark.parametrize(
    ("psnr", "identified", "severity"),
    [
        (15.1, 0.0, "severe"),
        (15.0, 0.0, "partial"),
        (13.1, 0.0, "partial"),
        (13.0, 0.0, "faint"),
        (12.1, 0.0, "faint"),
        (12.0, 0.0, "none found"),
        (9.0, 0.0, "none found"),
        (9.0, 0.51, "severe"),
        (9.0, 0.5, "partial"),
        (9.0, 0.06, "partial"),
        (9.0, 0.05, "none found"),
        (12.1, 0.05, "faint"),
    ],
)
def test_severity_follows_the_thresholds(psnr, identified, severity):
    assert assess(psnr, identified).severity == severity


def test_among_few_images_chance_is_no_leak():
    few = {"pools": {"private": 8, "test": 8}}  # chance .125; ten times that cannot be reached
    assert assess(9.0, 0.2, **few).severity == "none found"
    assert assess(9.0, 0.6, **few).severity == "severe"


def test_what_luck_does_among_a_handful_is_no_leak():
    floors = [attack(name, means, True) for name, means in FLOORS.items()]
    one = attack("ridge", {"psnr": 12.0, "ssim": 0.5, "id@1": 1.0}, False)
    chosen = {"black-box": dict.fromkeys(("psnr", "ssim", "id@1"), "ridge")}
    for count, severity in ((1, "none found"), (2, "none found"), (30, "severe")):
        summaries = {metric: kept.model_copy(update={"n": count}) for metric, kept in one.scores["private"].items()}
        few = one.model_copy(update={"scores": {**one.scores, "private": summaries}})
        found = verdict(record(attacks=[*floors, few], chosen=chosen, pools={"private": count, "test": count}))
        assert found.severity == severity
        assert ("one image" in found.sentences[1]) is (count == 1)


def test_an_attack_on_few_images_is_measured_against_another_on_the_same_ones():
    floors = [attack(name, means, True) for name, means in FLOORS.items()]
    whole = attack("ridge", {"psnr": 12.5, "ssim": 0.5, "id@1": 0.0}, False)
    search = attack("search", {"psnr": 18.0, "ssim": 0.5, "id@1": 0.0}, False)
    easy = search.model_copy(update={"indices": {"private": [0, 1, 2]}})
    chosen = {
        name: dict.fromkeys(("psnr", "ssim", "id@1"), one)
        for name, one in (("black-box", "ridge"), ("white-box", "search"))
    }
    beside = Comparison(
        kind="knowledge", first="search", second="ridge", metric="psnr", split="private", mean=1.0, ci95=(0.5, 1.5), n=3
    )
    for comparisons, severity, said in (
        ([beside], "partial", "18.0 dB (+1.0 dB to 'ridge' on the same images, which has 12.5 dB on all of them)"),
        ([], "severe", "18.0 dB; "),
    ):
        found = verdict(record(attacks=[*floors, whole, easy], chosen=chosen, comparisons=comparisons))
        assert found.severity == severity
        assert said in found.sentences[1]


def test_without_a_floor_nothing_is_measured():
    one = attack("ridge", {"psnr": 12.0, "ssim": 0.5, "id@1": 1.0}, False)
    found = verdict(record(attacks=[one], chosen={"black-box": dict.fromkeys(("psnr", "ssim", "id@1"), "ridge")}))
    assert found.severity == "not measured"
    assert "mean-image" in found.sentences[1]


def test_the_attack_that_identifies_most_decides_not_the_one_with_the_most_decibels():
    strong = attack("ridge", {"psnr": 14.0, "ssim": 0.5, "id@1": 0.02}, False)
    sharp = attack("sharp", {"psnr": 11.0, "ssim": 0.5, "id@1": 0.7}, False)
    floors = [attack(name, means, True) for name, means in FLOORS.items()]
    chosen = {"black-box": {"psnr": "ridge", "ssim": "ridge", "id@1": "sharp"}}
    one = verdict(record(attacks=[*floors, strong, sharp], chosen=chosen))
    assert one.severity == "severe"
    assert "'ridge'" in one.sentences[1]
    assert "70% of those by 'sharp' (3,000 images)" in one.sentences[1]


def test_a_fraction_of_a_handful_of_images_does_not_count():
    strong = attack("ridge", {"psnr": 12.5, "ssim": 0.5, "id@1": 0.02}, False)
    few = attack("search", {"psnr": 12.2, "ssim": 0.5, "id@1": 0.25}, False)
    few.scores["private"] = {metric: one.model_copy(update={"n": 8}) for metric, one in few.scores["private"].items()}
    floors = [attack(name, means, True) for name, means in FLOORS.items()]
    metrics = ("psnr", "ssim", "id@1")
    chosen = {"black-box": dict.fromkeys(metrics, "ridge"), "white-box": dict.fromkeys(metrics, "search")}
    one = verdict(record(attacks=[*floors, strong, few], chosen=chosen))
    assert one.severity == "faint"
    assert "2% of them" in one.sentences[1]
    alone = verdict(record(attacks=[*floors, few], chosen={"white-box": chosen["white-box"]}))
    assert alone.severity == "partial"


def test_flags_and_a_model_that_does_not_work_are_named():
    flag = Flag(name="target-not-trained", message="accuracy is that of guessing.")
    one = assess(16.0, 0.9, flags=[flag])
    assert any("target-not-trained" in sentence for sentence in one.sentences)
    target = record().target
    assert target is not None
    broken = assess(16.0, 0.9, target=target.model_copy(update={"accuracy": 0.12}))
    assert "hardly works" in broken.sentences[0]
    assert "order of the classes" in broken.sentences[0]
    assert "works on" in assess(16.0, 0.9).sentences[0]


def test_few_images_and_attacks_not_run_are_named():
    sizes = {"private": 8, "auxiliary": 60, "auxiliary_val": 10, "test": 25}
    one = assess(
        16.0,
        0.9,
        data={"sizes": sizes, "reidentification_pools": {"private": 8}},
        skipped={"search": "there is no gradient"},
    )
    said = " ".join(one.sentences)
    for words in ("from 60 images only", "over 8 private images", "'search' was not run: there is no gradient."):
        assert words in said
    plain = " ".join(assess(16.0, 0.9).sentences)
    assert "images only" not in plain


def test_every_severity_says_what_to_do():
    for psnr in (20.0, 14.0, 12.5, 10.0):
        one = assess(psnr, 0.0)
        assert len(one.sentences) >= 3, one
