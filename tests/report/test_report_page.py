import base64
import io
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from sparseguard.core.errors import StoreError
from sparseguard.record import Flag
from sparseguard.record.claims import find_claim
from sparseguard.report import write_page
from support import synthetic_records as made
from support.html_pages import Balance, words_of


def written(tmp_path, records, with_images=False, pictures=None):
    path = tmp_path / "report.html"
    held = {record.case.slug: made.pictures() for record in records if record.status == "ok"}
    write_page(records, held if pictures is None else pictures, path, with_images)
    return path.read_text(encoding="utf-8")


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


@pytest.mark.parametrize("with_images", [False, True])
def test_page_is_well_formed_and_loads_nothing(tmp_path, with_images):
    text = written(tmp_path, grid(), with_images)
    seen = Balance()
    seen.feed(text)
    assert (seen.open, seen.wrong) == ([], [])
    assert "script" not in seen.tags
    assert all(load.startswith(("#", "data:image/png;base64,")) for load in seen.loads)
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_numbers_claims_flags_and_failures_are_on_the_page(tmp_path):
    text = words_of(written(tmp_path, grid(), pictures={}))
    for piece in (
        "20.00 [19.90, 20.10] floor 12.00 leak +8.00",
        "leak -1.00",
        "paper claims Table 3 0.766 16.49 0.302",
        "Few epochs.",
        "it is 0.61",
        "failed: fit: TrainingError: the loss is not finite at epoch 3.",
        "effective rank 40.0",
        "queries: 3,000 private, 3,600 auxiliary",
        "[19.90, 20.10] 18.00 / 20.00 / 22.00",
        "device somewhere",
        "the private images' features",
    ):
        assert piece in text


def test_hostile_names_are_escaped(tmp_path):
    hostile = '<script>alert("x")</script>'
    flag = Flag(name=hostile, message=hostile, expected=hostile)
    text = written(
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
    seen = Balance()
    seen.feed(text)
    assert (seen.open, seen.wrong) == ([], [])


def test_without_images_no_picture_is_on_the_page(tmp_path):
    text = written(tmp_path, grid(), with_images=False)
    assert "data:image" not in text
    assert "<img" not in text
    assert "--with-images" in text


@pytest.mark.parametrize(
    ("channels", "side", "mode", "width"), [(1, 28, "L", 56), (3, 32, "RGB", 64), (3, 200, "RGB", 128)]
)
def test_pictures_are_the_gallerys(tmp_path, channels, side, mode, width):
    record = made.record()
    held = made.pictures(channels, side)
    text = written(tmp_path, [record], with_images=True, pictures={record.case.slug: held})
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" width="(\d+)"', text)
    assert len(found) == 18
    assert {int(shown) for _, shown in found} == {width}
    first = Image.open(io.BytesIO(base64.b64decode(found[0][0])))
    assert first.mode == mode
    if side <= 128:
        expected = held.gallery["original"][-1].transpose(1, 2, 0)
        assert first.tobytes() == expected.tobytes()
    assert [f"{score:.1f} dB" in text for score in (51, 27, 3, 15)] == [True, True, True, False]


def test_cases_without_pictures_are_named(tmp_path):
    text = written(tmp_path, [made.record("none"), made.record("sca"), made.failed("gone")], True, {})
    assert "No pictures lie beside these records." in text
    held = {made.record("none").case.slug: made.pictures()}
    text = written(tmp_path, [made.record("none"), made.record("sca"), made.failed("gone")], True, held)
    assert "<small>no pictures</small>" in text
    assert "<small>failed</small>" in text


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
    ids=["all failed", "none chosen", "bare", "no test part", "unknown threat", "long name", "nothing"],
)
def test_incomplete_records_still_make_a_page(tmp_path, records):
    assert written(tmp_path, records, with_images=True).endswith("</html>\n")


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
