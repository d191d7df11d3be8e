"""Scores image by image, from the files beside the records, each with its image's index in the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sparseguard.record import FeatureInversionAttack, Pictures, Record

PicturesBySlug = Mapping[str, Pictures]
"""Pictures and scores of each image, by the case's slug."""


@dataclass(frozen=True, eq=False)
class ImageScores:
    """Scores of some images of a split and these images' indices in it, both by rising index."""

    indices: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]

    def select(self, indices: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"] | None:
        """Return the scores of the images at ``indices``, by rising index; None unless all of them were scored."""
        mask = np.isin(self.indices, indices)
        return self.values[mask] if mask.sum() == len(indices) else None


def select_image_scores(
    record: Record, pictures: PicturesBySlug, attack: FeatureInversionAttack, split: str, metric: str
) -> ImageScores | None:
    """Return an attack's scores, None where the file beside the record does not hold them for every image."""
    arrays = pictures.get(record.case.slug)
    values = arrays.scores.get(f"{attack.name}/{split}/{metric}") if arrays else None
    if values is None or values.ndim != 1 or len(values) == 0:
        return None
    indices = np.asarray(attack.indices.get(split, range(len(values))), dtype=np.int64)
    if len(indices) != len(values) or len(set(indices.tolist())) != len(indices):
        return None
    scores = values.astype(np.float64)
    if not np.isfinite(scores).all():
        return None
    order = np.argsort(indices)
    return ImageScores(indices[order], scores[order])


def subtract(first: ImageScores, second: ImageScores) -> ImageScores | None:
    """Return first minus second on the images that both scored, None where there are none."""
    shared = np.intersect1d(first.indices, second.indices)
    ours, theirs = first.select(shared), second.select(shared)
    return None if len(shared) == 0 or ours is None or theirs is None else ImageScores(shared, ours - theirs)


def average_seeds(scores: Sequence[ImageScores | None]) -> ImageScores | None:
    """Return each image's mean over seeds; None unless every seed scored the same images."""
    known = [each for each in scores if each is not None]
    if not known or len(known) < len(scores):
        return None
    if any(not np.array_equal(each.indices, known[0].indices) for each in known):
        return None
    return ImageScores(known[0].indices, np.mean([each.values for each in known], axis=0))


def select_all_image_scores(record: Record, pictures: PicturesBySlug) -> dict[tuple[str, str, str], ImageScores]:
    """Return the scores of all attacks of a case, by attack, split and metric, as far as files hold them."""
    return {
        (attack.name, split, metric): scores
        for attack in record.attacks
        for split, by_metric in attack.scores.items()
        for metric in by_metric
        if (scores := select_image_scores(record, pictures, attack, split, metric))
    }


def same_images(first: Record, second: Record, split: str) -> bool:
    """Return whether a split has the same images in both cases, as far as the records say."""
    return first.data.fingerprints.get(split) == second.data.fingerprints.get(split)
