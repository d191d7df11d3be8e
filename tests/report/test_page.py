"""The page: well-formed, self-contained, escaped, written whole; its words."""

import os
import re
import subprocess
import sys

import pytest

from sparseguard.core.errors import StoreError
from sparseguard.record import FeatureInversionAttack, Flag, Record
from sparseguard.record.claims import find_claim
from sparseguard.report import write_page
from support import class_records as classes
from support import full_records as full
from support import many_defenses as many
from support import synthetic_records as made
from support.report_forms import page, wording

HOSTILE = '<img src="https://example.org/x.png"><script>alert(1)</script>'


def grid():
    flags = [
        Flag(name="low-accuracy", message="it is 0.61", expected="Few epochs."),
        Flag(name="below-floor", message="m"),
    ]
    claim = find_claim("split", "celeba", "none", None)
    return [
        *(made.record("none", threat, claim=claim) for threat in ("split", "end-to-end")),
        *(made.record("sca lambd=0.5", "split", seed, shift=-9.0, flags=flags) for seed in (0, 1)),
        made.failed("sca lambd=0.5", "end-to-end"),
    ]


def pair():
    records = [full.record(), full.record("sca", shift=4.0)]
    return records, {one.case.slug: full.pictures(0, shift) for one, shift in zip(records, (0.0, 4.0), strict=True)}


RECORDS = {
    "plain": grid,
    "everything": lambda: pair()[0],
    "two seeds": lambda: [full.record(seed=seed) for seed in (0, 1)],
    "classes": lambda: [classes.record(), classes.record("sca 0.5", seed=1), classes.failed("gone")],
    "families": lambda: many.grid(3, 2),
    "nothing": list,
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_words_of_the_page(tmp_path, snapshot, name):
    records = RECORDS[name]()
    pictures = pair()[1] if name == "everything" else {}
    assert wording(page(tmp_path, records, pictures)) == snapshot


@pytest.mark.parametrize("with_images", [False, True])
@pytest.mark.parametrize("with_pictures", [False, True])
def test_page_opens_without_network(tmp_path, with_images, with_pictures):
    records, pictures = pair()
    text = page(tmp_path, records, pictures if with_pictures else {}, with_images)
    assert not re.search(r"https?:|url\(|@import", text)
    assert ("data:image" in text) == (with_images and with_pictures)


def test_scores_are_used_where_images_are_not_shown(tmp_path):
    records, pictures = pair()
    text = " ".join(wording(page(tmp_path, records, pictures)))
    assert "-4.00 [-4.00, -4.00]" in text
    assert "floor n/a on these images" not in text
    assert "floor n/a on these images" in " ".join(wording(page(tmp_path, records)))


def hostile_record() -> Record:
    plain = full.record().model_dump(mode="json")
    name = {"ridge-conv": HOSTILE}
    outcome = plain["outcome"]
    for attack in outcome["attacks"]:
        attack["name"] = name.get(attack["name"], attack["name"])
        attack["conditions"]["dataset"] = HOSTILE
        attack["curves"] = {"auxiliary_val_psnr": [1.0, 2.0], "feature_loss": {HOSTILE: [1.0, 0.1]}}
        attack["set_scores"] = {HOSTILE: {HOSTILE: {"value": None, "reason": HOSTILE, "n": 3}}}
        attack["diagnostics"] = {"extra": {HOSTILE: 1.0}}
    for comparison in outcome["comparisons"]:
        comparison["second"] = name.get(comparison["second"], comparison["second"])
    for choice in outcome["chosen"]:
        choice["attack"] = HOSTILE
    for bound in outcome["bounds"]:
        bound.update(name=HOSTILE, layer=HOSTILE, meaning=HOSTILE, values={HOSTILE: 2.0})
        bound["layers"] = [{"layer": HOSTILE, "psnr": 3.0, "corrected_psnr": 4.0}]
    outcome["skipped"] = {HOSTILE: HOSTILE}
    plain["evaluators"] = {HOSTILE: {"accuracy": 0.5}}
    plain["case"]["defense"] = HOSTILE
    return Record.model_validate(plain)


def test_hostile_words_are_escaped_everywhere(tmp_path):
    record = hostile_record()
    text = page(tmp_path, [record, full.record()], {record.case.slug: full.pictures()}, True)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_bare_attack_is_shown(tmp_path):
    bare = FeatureInversionAttack(
        name="x",
        attack="x",
        queries=1,
        eligible=True,
        knowledge="gray-box",
        floor=False,
        parameter_change=None,
        outside_range=0.0,
        scores={},
    )
    record = full.record(attacks=[bare], chosen={"gray-box": {"psnr": "x"}})
    text = page(tmp_path, [record], {record.case.slug: full.pictures()})
    assert text.endswith("</html>\n")


def test_hostile_names_are_escaped(tmp_path):
    hostile = '<script>alert("x")</script>'
    flag = Flag(name=hostile, message=hostile, expected=hostile)
    text = page(
        tmp_path,
        [
            made.record(hostile, flags=[flag], recipe=hostile, provenance={"device": hostile}),
            made.failed(hostile, hostile),
            made.record(data={"sizes": {hostile: 3}, "layout": hostile}, chosen={"black-box": {"psnr": hostile}}),
        ],
        with_images=True,
    )
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    "records",
    [
        [made.failed()],
        [made.record(chosen={})],
        [made.record(attacks=[], chosen={}, pools={}, features=None, target=None, provenance={})],
        [made.record(attacks=made.attacks(parts={"private": 0.0}))],
        [made.record(threat="something-else")],
        [made.record(defense="a-name-much-too-long-for-the-chart-that-goes-on-and-on")],
        [],
    ],
    ids=["all failed", "none chosen", "bare", "no test split", "unknown threat", "long name", "nothing"],
)
def test_incomplete_records_still_make_a_page(tmp_path, records):
    assert page(tmp_path, records, with_images=True).endswith("</html>\n")


def test_a_failed_write_leaves_the_old_page_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match="No space left"):
        write_page(grid(), {}, path, False)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_place_of_the_folder_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_page(grid(), {}, tmp_path / "file" / "report.html", False)


def test_missing_folders_are_made(tmp_path):
    write_page(grid(), {}, tmp_path / "a" / "b.html", False)
    assert (tmp_path / "a" / "b.html").exists()


def test_reports_need_no_torch():
    code = (
        "import sys, sparseguard.report, sparseguard.record.claims; assert 'torch' not in sys.modules; "
        "own = {name.split('.')[1] for name in sys.modules if name.startswith('sparseguard.')} - {'report'}; "
        "read = {'record', 'core', 'stats'}; "
        "assert own <= read, own"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
