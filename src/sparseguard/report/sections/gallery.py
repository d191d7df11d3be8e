"""Section with private images and their reconstructions under every defense, chosen by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseguard.record import FeatureInversionAttack, Record
from sparseguard.report.analysis.adversary import (
    BLACK_BOX,
    Adversary,
    find_chosen_attack,
    list_adversaries,
    sort_adversaries,
)
from sparseguard.report.analysis.names import UNDEFENDED
from sparseguard.report.analysis.per_image import PicturesBySlug, select_image_scores
from sparseguard.report.analysis.record_group import Kind, RecordGroup
from sparseguard.report.html.environment import render_html
from sparseguard.report.html.pictures import Picture, Strip, draw_tile
from sparseguard.report.section import Section
from sparseguard.report.text.numbers import format_number

COUNT = 3
"""Images shown of each kind: best, median and worst."""


@dataclass(frozen=True)
class Sheet:
    """A grid of pictures: groups of columns with their sizes, the rule by which images were chosen, and its lines."""

    rule: str
    groups: tuple[tuple[str, int], ...]
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class GalleryData:
    """The sheet, None where no pictures lie beside the records."""

    sheet: Sheet | None


class Gallery(Section[GalleryData]):
    """Private images and their reconstructions, where the user wants them on the page."""

    kinds = (Kind.FEATURE_INVERSION,)

    def collect(self, group: RecordGroup) -> GalleryData | None:
        """Return the sheet of a group."""
        return GalleryData(draw_sheet(group)) if group.options.with_images else None

    def html(self, data: GalleryData) -> str:
        """Return the grid of pictures."""
        return render_html("gallery.html.j2", sheet=data.sheet)


def draw_sheet(group: RecordGroup) -> Sheet | None:
    """Return reconstructions of the same images under every defense and adversary; None without pictures.

    The images are those that the chosen black-box attack reconstructs best, at the median and worst under no defense
    (or under the first defense, where none is missing), of those that were attacked for every adversary, if these are
    enough. Of several seeds the first one with pictures is shown.
    """
    pictures = group.pictures
    shown = [
        next((record for record in cell if record.status == "ok" and record.case.slug in pictures), None)
        for cell in group.cells
    ]
    records = [record for record in shown if record and "original" in pictures[record.case.slug].gallery]
    if not records:
        return None
    base = next((record for record in records if record.case.defense == UNDEFENDED), records[0])
    groups, rule = _choose_images(base, pictures, _attacked_everywhere(records, pictures))
    indices = [index for _, subset in groups for index in subset]
    originals = _gallery(base, pictures, None)
    tiles = tuple(draw_tile(originals.get(index), f"image {index:,}") for index in indices)
    strips = [Strip("original", "", tiles)]
    for cell, record in zip(group.cells, shown, strict=True):
        if record is None:
            failed = all(each.status == "failed" for each in cell)
            strips.append(Strip(cell[0].case.defense, "failed" if failed else "no pictures"))
            continue
        strips += [_strip(record, pictures, each, indices) for each in sort_adversaries(list_adversaries(record))]
    return Sheet(rule, tuple((name, len(subset)) for name, subset in groups), tuple(strips))


def _attacked_everywhere(records: Sequence[Record], pictures: PicturesBySlug) -> set[int]:
    """Return the indices of the images that the chosen attack of every record and adversary reconstructed."""
    chosen = (
        (record, find_chosen_attack(record, adversary, "psnr"))
        for record in records
        for adversary in list_adversaries(record)
    )
    galleries = [set(_gallery(record, pictures, attack)) for record, attack in chosen if attack]
    return set.intersection(*galleries) if galleries else set()


def _choose_images(
    base: Record, pictures: PicturesBySlug, everywhere: set[int]
) -> tuple[list[tuple[str, list[int]]], str]:
    """Return groups of indices of images, and the rule they were chosen by."""
    originals = _gallery(base, pictures, None)
    candidates = (
        find_chosen_attack(base, each, "psnr") for each in (BLACK_BOX, *sort_adversaries(list_adversaries(base)))
    )
    attack = next((each for each in candidates if each), None)
    scores = _scores(base, pictures, attack) if attack else {}
    known = [index for index in originals if index in scores]
    shared = [index for index in known if index in everywhere]
    ranked = sorted(shared if len(shared) >= 3 * COUNT else known, key=lambda index: -scores[index])
    if attack is None or not ranked:
        return [("first images", list(originals)[: 3 * COUNT])], "The first images of the gallery."
    rule = (
        f"Of {len(ranked)} private images, the same ones in every case: those that {attack.name} reconstructs best, "
        f"at the median and worst (PSNR) under {base.case.defense}, seed {base.case.seed}."
    )
    if len(ranked) < 3 * COUNT:
        return [("best to worst", ranked)], rule
    middle = (len(ranked) - COUNT) // 2
    return [
        ("best", ranked[:COUNT]),
        ("median", ranked[middle : middle + COUNT]),
        ("worst", ranked[-COUNT:]),
    ], rule


def _strip(record: Record, pictures: PicturesBySlug, adversary: Adversary, indices: Sequence[int]) -> Strip:
    attack = find_chosen_attack(record, adversary, "psnr")
    label = f"{record.case.defense}, {adversary.label}"
    if attack is None:
        return Strip(label, "no attack chosen")
    images = _gallery(record, pictures, attack)
    if not images:
        return Strip(label, f"no pictures of {attack.name}")
    scores = _scores(record, pictures, attack)
    words = (f"{format_number(scores[index], 1)} dB" if index in scores else "" for index in indices)
    tiles = tuple(draw_tile(images.get(index), each) for index, each in zip(indices, words, strict=True))
    return Strip(label, f"{attack.name}, seed {record.case.seed}", tiles)


def _gallery(record: Record, pictures: PicturesBySlug, attack: FeatureInversionAttack | None) -> dict[int, Picture]:
    """Return pictures by the index of their image; an attack on a subset has pictures of these only."""
    images = pictures[record.case.slug].gallery.get(attack.name if attack else "original")
    if images is None:
        return {}
    indices = record.data.gallery_indices or list(range(len(images)))
    subset = attack.indices.get("private") if attack else None
    if subset is not None:
        attacked = set(subset)
        indices = [index for index in indices if index in attacked]
    return dict(zip(indices, images, strict=True)) if len(indices) == len(images) else {}


def _scores(record: Record, pictures: PicturesBySlug, attack: FeatureInversionAttack) -> dict[int, float]:
    scores = select_image_scores(record, pictures, attack, "private", "psnr")
    return dict(zip(scores.indices.tolist(), scores.values.tolist(), strict=True)) if scores else {}
