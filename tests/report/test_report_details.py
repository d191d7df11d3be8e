"""What the page shows besides scores: sheets, curves, bounds, sets; and that nothing hostile gets through."""

import base64
import io
import re

import pytest
from PIL import Image
from rich.console import Console

from sparseguard.record import Bound, FeatureInversionAttack, Record
from sparseguard.report import render, write_page
from sparseguard.report.analysis.bounds import bound_tables
from sparseguard.report.charts.axis import linear, logarithmic
from sparseguard.report.charts.learning_curves import curve_charts
from sparseguard.report.html.gallery import sheet
from support import full_records as full
from support import synthetic_records as made
from support.html_pages import Balance, words_of

HOSTILE = '<img src="https://example.org/x.png"><script>alert(1)</script>'


def pair():
    records = [full.record(), full.record("sca", shift=4.0)]
    return records, {one.case.slug: full.pictures(0, shift) for one, shift in zip(records, (0.0, 4.0), strict=True)}


def page(tmp_path, records, pictures, with_images=True):
    path = tmp_path / "report.html"
    write_page(records, pictures, path, with_images)
    return path.read_text(encoding="utf-8")


def grey(tile):
    """The place of a picture's image, which its grey tells."""
    picture = Image.open(io.BytesIO(base64.b64decode(tile.address.partition("base64,")[2])))
    return picture.getpixel((0, 0)) // 4


@pytest.mark.parametrize("with_images", [False, True])
@pytest.mark.parametrize("with_pictures", [False, True])
def test_page_opens_without_network(tmp_path, with_images, with_pictures):
    records, pictures = pair()
    text = page(tmp_path, records, pictures if with_pictures else {}, with_images)
    seen = Balance()
    seen.feed(text)
    assert (seen.open, seen.wrong) == ([], [])
    assert not seen.tags & {"script", "link", "iframe", "object", "embed"}
    assert all(load.startswith(("#", "data:image/png;base64,")) for load in seen.loads)
    assert not re.search(r"https?:|url\(|@import", text)
    assert ("data:image" in text) == (with_images and with_pictures)


def test_scores_are_used_where_images_are_not_shown(tmp_path):
    records, pictures = pair()
    text = words_of(page(tmp_path, records, pictures, with_images=False))
    assert "What each defense buys" in text
    assert "-4.00 [-4.00, -4.00]" in text
    assert "floor n/a on these images" not in text
    bare = words_of(page(tmp_path, records, {}, with_images=False))
    assert "What each defense buys" not in bare
    assert "floor n/a on these images" in bare


def test_everything_recorded_is_on_the_page(tmp_path):
    records, pictures = pair()
    text = words_of(page(tmp_path, records, pictures))
    for piece in (
        "n = 5 of 60",
        "n = 4 of 40",
        "each private image is observed 16 times",
        "each image observed 16 times",
        "shuffled features",
        "not available: too few images for a covariance",
        "0.0123",
        "evaluator accuracy (pooling-net)",
        "pooling-net recognizes 0.871",
        "What a perfect attacker could know",
        "not available: the model adds no noise",
        "null from mean: 25.68 dB",
        "rank: 1,300",
        "rises by 2.00 dB",
        "there is no sparse layer",
        "How the attackers learned",
        "How searches came to fit what leaked",
        "How the defended models learned",
        "0.005",
    ):
        assert piece in text, piece


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
    text = page(tmp_path, [record, full.record()], {record.case.slug: full.pictures()})
    seen = Balance()
    seen.feed(text)
    assert (seen.open, seen.wrong) == ([], [])
    assert "<script" not in text
    assert "script" not in seen.tags
    assert all(load.startswith(("#", "data:image/png;base64,")) for load in seen.loads)
    assert "&lt;script&gt;" in text


def test_a_sheet_shows_best_median_and_worst_under_none():
    records, pictures = pair()
    found = sheet(records, pictures)
    psnr = full.scores()["ridge-conv/private/psnr"]
    gallery = records[0].data.gallery_indices
    ranked = sorted(gallery, key=lambda place: -psnr[place])
    middle = (len(ranked) - 3) // 2
    expected = [*ranked[:3], *ranked[middle : middle + 3], *ranked[-3:]]
    assert found.groups == (("best", 3), ("median", 3), ("worst", 3))
    assert [grey(tile) for tile in found.strips[0].tiles] == expected
    assert found.strips[1].tiles[0].words == f"{psnr[expected[0]]:.1f} dB"


def test_every_strip_shows_the_same_images_and_a_dash_where_none_was_attacked():
    records, pictures = pair()
    found = sheet(records, pictures)
    assert [strip.label for strip in found.strips[1:4]] == ["none, black-box", "none, black-box ×16", "none, white-box"]  # noqa: RUF001
    places = [grey(tile) for tile in found.strips[0].tiles]
    attacked = 0
    for strip in found.strips[1:]:
        for place, tile in zip(places, strip.tiles, strict=True):
            if "white-box" in strip.label and place not in full.SUBSET["private"]:
                assert (tile.address, tile.words) == ("", "not attacked")
            else:
                assert grey(tile) == place
                attacked += "white-box" in strip.label
    assert attacked > 0
    place = next(place for place in places if place in full.SUBSET["private"])
    score = full.scores()["search/private/psnr"][full.SUBSET["private"].index(place)]
    assert found.strips[3].tiles[places.index(place)].words == f"{score:.1f} dB"


def test_few_images_are_shown_once_each():
    record = full.record(data={"sizes": full.COUNTS, "gallery_indices": [3, 9, 4]})
    pictures = full.pictures()
    for name in list(pictures.gallery):
        pictures.gallery[name] = pictures.gallery[name][:3]
    found = sheet([record], {record.case.slug: pictures})
    assert found.groups == (("best to worst", 3),)
    assert found.strips[-1].words == "no pictures of search"


def test_curves_share_one_scale():
    low, high = full.record(), full.record("sca")
    plain = high.model_dump()
    for attack in plain["outcome"]["attacks"]:
        if attack["curves"]["auxiliary_val_psnr"]:
            attack["curves"] = {"auxiliary_val_psnr": [5.0, float("nan"), 18.0]}
    learned, searched, trained = curve_charts([low, Record.model_validate(plain)])
    assert [panel.title for panel in learned.panels] == ["none", "sca"]
    assert [words for _, words in learned.y_ticks][:1] == ["5"]
    lines = [panel.traces[0] for panel in learned.panels]
    heights = [[float(point.split(",")[1]) for point in line.points.split()] for line in lines]
    assert heights[0][0] == pytest.approx(heights[1][-1])
    assert len(heights[1]) == 2
    assert [words for _, words in searched.y_ticks] == ["0.001", "0.01", "0.1"]
    assert [label for label, _ in searched.legend] == ["search, private", "search, test"]
    assert trained.legend == (("target", 0),)
    assert curve_charts([made.record()]) == []


@pytest.mark.parametrize("values", [[3.0], [0.0], [1e-9, 2e-9], [-5.0, 40.0], [1e6, 1e6 + 1], [100.0] * 3])
def test_scales_hold_their_values(values):
    axis = linear(values)
    assert all(-1e-6 <= axis.share(value) <= 1 + 1e-6 for value in values)
    assert 2 <= len(axis.ticks) <= 8
    if min(values) > 0:
        axis = logarithmic(values)
        assert all(-1e-6 <= axis.share(value) <= 1 + 1e-6 for value in values)


def test_bounds_of_several_seeds_are_averaged():
    records = [full.record(seed=seed, bounds=full.bounds(30.0 + seed)) for seed in (0, 1)]
    (table,) = bound_tables(records)
    assert table.seeds == 2
    assert table.rows[0].figures == (("codes by decode", "29.50 ± 0.71 dB"),)
    assert table.rows[1].reason == "the model adds no noise"
    assert [bar.wall for bar in table.waterfall.bars] == ["image", "codes", "first", "last"]
    assert [bar.mark is not None for bar in table.waterfall.bars] == [False, False, True, False]
    assert table.waterfall.bars[0].words == "exact"
    assert bound_tables([made.record()]) == []


def test_bounds_that_differ_between_seeds_still_make_a_table():
    other = [Bound(name="else", meaning="m", values={"a": 1.0})]
    (table,) = bound_tables([full.record(seed=0), full.record(seed=1, bounds=other)])
    assert [row.name for row in table.rows] == ["layer-wise reconstruction (last)", "noise-pool", "null-space"]


def test_terminal_has_a_row_a_level_and_fits():
    records, pictures = pair()
    console = Console(width=100, file=io.StringIO(), color_system=None)
    for table in render(records, pictures):
        console.print(table)
    text = console.file.getvalue()
    joined = " ".join(text.split())
    for piece in (
        "(black-box ×16)",
        "(white-box)",
        "n=5/4",
        "none: white-box minus black-box",
        "sca minus none",
        "-4.00",
    ):
        assert piece in joined, piece
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    wide = Console(width=300, file=io.StringIO(), color_system=None)
    for table in render(records, pictures):
        assert wide.measure(table).minimum <= 100


def test_without_pictures_the_terminal_compares_levels_alone():
    records, _ = pair()
    assert len(render(records)) == 2
    assert len(render([made.record()])) == 1


def test_a_bare_attack_is_shown(tmp_path):
    bare = FeatureInversionAttack(
        name="x",
        attack="x",
        knowledge="gray-box",
        floor=False,
        parameter_change=None,
        outside_range=0.0,
        scores={},
    )
    record = full.record(attacks=[bare], chosen={"gray-box": {"psnr": "x"}})
    text = page(tmp_path, [record], {record.case.slug: full.pictures()})
    assert text.endswith("</html>\n")
