"""Pictures of the page: which images are shown, and that they are the gallery's."""

import base64
import io
import re

import pytest
from PIL import Image

from sparseguard.report.sections.gallery import draw_sheet
from support import full_records as full
from support import synthetic_records as made
from support.report_forms import feature_groups, page


def pair():
    records = [full.record(), full.record("sca", shift=4.0)]
    return records, {one.case.slug: full.pictures(0, shift) for one, shift in zip(records, (0.0, 4.0), strict=True)}


def sheet(records, pictures):
    (group,) = feature_groups(records, pictures)
    return draw_sheet(group)


def grey(tile):
    """The index of a picture's image, which its grey encodes."""
    picture = Image.open(io.BytesIO(base64.b64decode(tile.address.partition("base64,")[2])))
    return picture.getpixel((0, 0)) // 4


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
    assert [strip.label for strip in found.strips[1:4]] == [
        "none, black-box",
        "none, black-box, 16 queries",
        "none, white-box",
    ]
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


def test_without_images_no_picture_is_on_the_page(tmp_path):
    text = page(tmp_path, *pair(), with_images=False)
    assert "data:image" not in text
    assert "<img" not in text
    assert "--with-images" in text


@pytest.mark.parametrize(
    ("channels", "side", "mode", "width"), [(1, 28, "L", 56), (3, 32, "RGB", 64), (3, 200, "RGB", 128)]
)
def test_pictures_are_the_gallerys(tmp_path, channels, side, mode, width):
    record = made.record()
    held = made.pictures(channels, side)
    text = page(tmp_path, [record], {record.case.slug: held}, True)
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
    text = page(tmp_path, [made.record("none"), made.record("sca"), made.failed("gone")], {}, True)
    assert "No pictures lie beside these records." in text
    held = {made.record("none").case.slug: made.pictures()}
    text = page(tmp_path, [made.record("none"), made.record("sca"), made.failed("gone")], held, True)
    assert "<small>no pictures</small>" in text
    assert "<small>failed</small>" in text
