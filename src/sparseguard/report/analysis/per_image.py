"""Scores image by image, from the files beside the records, each with its image's place in the part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sparseguard.record import FeatureInversionAttack, Pictures, Record

Held = Mapping[str, Pictures]
"""What lies beside the records, by the case's slug."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Scores of some images of a part and these images' places in it, both in the order of the places."""

    places: Int[np.ndarray, " n"]
    values: Float[np.ndarray, " n"]

    def at(self, places: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"] | None:
        """Return the scores of the images at ``places``, in rising order; None unless all of them were scored."""
        keep = np.isin(self.places, places)
        return self.values[keep] if keep.sum() == len(places) else None


def sample(record: Record, held: Held, attacker: FeatureInversionAttack, part: str, metric: str) -> Sample | None:
    """Return an attacker's scores, None where the file beside the record does not hold them for every image."""
    pictures = held.get(record.case.slug)
    values = pictures.scores.get(f"{attacker.name}/{part}/{metric}") if pictures else None
    if values is None or values.ndim != 1 or len(values) == 0:
        return None
    places = np.asarray(attacker.indices.get(part, range(len(values))), dtype=np.int64)
    if len(places) != len(values) or len(set(places.tolist())) != len(places):
        return None
    scores = values.astype(np.float64)
    if not np.isfinite(scores).all():
        return None
    order = np.argsort(places)
    return Sample(places[order], scores[order])


def difference(first: Sample, second: Sample) -> Sample | None:
    """Return first minus second on the images that both scored, None where there are none."""
    shared = np.intersect1d(first.places, second.places)
    ours, theirs = first.at(shared), second.at(shared)
    return None if len(shared) == 0 or ours is None or theirs is None else Sample(shared, ours - theirs)


def over_seeds(samples: Sequence[Sample | None]) -> Sample | None:
    """Return each image's mean over seeds; None unless every seed scored the same images."""
    known = [one for one in samples if one is not None]
    if not known or len(known) < len(samples):
        return None
    if any(not np.array_equal(one.places, known[0].places) for one in known):
        return None
    return Sample(known[0].places, np.mean([one.values for one in known], axis=0))


def every_sample(record: Record, held: Held) -> dict[tuple[str, str, str], Sample]:
    """Return the scores of all attackers of a case, by attacker, part and metric, as far as they are at hand."""
    return {
        (attacker.name, part, metric): found
        for attacker in record.attacks
        for part, by_metric in attacker.scores.items()
        for metric in by_metric
        if (found := sample(record, held, attacker, part, metric))
    }


def same_images(first: Record, second: Record, part: str) -> bool:
    """Return whether a part has the same images in both cases, as far as the records tell."""
    ours, theirs = (record.data.fingerprints for record in (first, second))
    return bool(ours.get(part) == theirs.get(part))
