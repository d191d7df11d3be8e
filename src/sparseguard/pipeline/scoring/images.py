"""Scores of reconstructions and their summaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparseguard.core.out_of_core import inner_products, mean_and_std, moments
from sparseguard.metrics import METRICS
from sparseguard.pipeline.recipe.conditions import select_attacked
from sparseguard.record import Choice, Summary
from sparseguard.stats import normal_interval
from sparseguard.types import Knowledge, Splits

GALLERY = 64
REVISION = 1
"""Of scores, choices and comparisons: this file, `paired` and `distributions`."""


def list_scored_splits(splits: Splits) -> tuple[str, ...]:
    """Return the splits that are reconstructed: in layout ``paper`` the auxiliary data hold the test images."""
    return ("private", "auxiliary_val") if splits.layout == "paper" else ("private", "test", "auxiliary_val")


def reidentification_pools(splits: Splits) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return split to the candidate images of re-identification, and each original's index among them.

    The candidates of private and test reconstructions are the private images; each test image replaces one of them, so
    that N is the same for both. On auxiliary_val, where attacks are chosen, they are the auxiliary images: an attacker
    has no private images to choose with.
    """
    private = splits.private.pixels
    return {
        "private": (private, torch.arange(len(private))),
        "test": (private, torch.arange(len(splits.test)) % len(private)),
        "auxiliary_val": (splits.auxiliary.pixels, None),
    }


def count_reidentification_pools(splits: Splits) -> dict[str, int]:
    """Return N of re-identification rate@1 by split; chance is 1/N."""
    sizes = {
        split: len(pool) + (originals_in_pool is None)
        for split, (pool, originals_in_pool) in reidentification_pools(splits).items()
    }
    return {split: sizes[split] for split in list_scored_splits(splits)}


def score(
    reconstructions: Mapping[str, Tensor], splits: Splits, index: Mapping[str, Tensor | None]
) -> dict[str, dict[str, Tensor]]:
    """Return split -> metric -> score of each image ``(n,)``; ``index`` has the indices of the images."""
    by_split, pools_of = splits.by_name(), reidentification_pools(splits)
    scores = {}
    for split, images in reconstructions.items():
        attacked = index[split]
        rows = torch.arange(len(by_split[split])) if attacked is None else attacked
        originals, (pool, originals_in_pool) = by_split[split].batch(rows), pools_of[split]
        originals_in_pool = None if originals_in_pool is None else originals_in_pool[rows]
        scores[split] = {
            name: metric.compute(images, originals, pool, originals_in_pool) for name, metric in METRICS.items()
        }
    return scores


def summarize(values: Tensor) -> Summary:
    """Return mean, standard deviation, a normal 95 % interval of the mean over images, and quantiles."""
    scores = values.double().numpy()
    mean, std = float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    low, middle, high = (float(value) for value in np.quantile(scores, (0.05, 0.5, 0.95)))
    return Summary(
        mean=mean, std=std, ci95=normal_interval(mean, std, len(scores)), quantiles=(low, middle, high), n=len(scores)
    )


def choose(attacks: Sequence[ScoredAttack]) -> list[Choice]:
    """Return, by knowledge, number of queries and metric, the attack with the best mean on auxiliary_val.

    Means are over the images that all attacks of the same knowledge and number of queries attacked.
    """
    chosen: list[Choice] = []
    for knowledge, queries in dict.fromkeys((attack.knowledge, attack.queries) for attack in attacks):
        rivals = [attack for attack in attacks if (attack.knowledge, attack.queries) == (knowledge, queries)]
        shared = set.intersection(*(set(rival.indices["auxiliary_val"]) for rival in rivals))
        for metric in METRICS:
            means = {rival.name: rival.mean("auxiliary_val", metric, shared) for rival in rivals}
            best = max(means, key=lambda name: METRICS[metric].leakage(means[name]))
            chosen.append(Choice(knowledge=knowledge.value, queries=queries, metric=metric, attack=best))
    return chosen


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredAttack:
    """An attack's scores per image and the images' indices in their splits."""

    name: str
    knowledge: Knowledge
    queries: int
    indices: Mapping[str, list[int]]
    scores: Mapping[str, Mapping[str, Tensor]]

    def mean(self, split: str, metric: str, shared: set[int]) -> float:
        """Return the mean over the images at ``shared`` places."""
        return float(self.at(split, metric, shared).mean())

    def at(self, split: str, metric: str, shared: set[int]) -> Tensor:
        """Return the scores of the images at ``shared`` indices, in their order."""
        chosen_rows = torch.tensor([place in shared for place in self.indices[split]])
        return self.scores[split][metric][chosen_rows].double()


def effective_rank(features: Tensor) -> float:
    r"""Return :math:`\exp(-\sum_i p_i \ln p_i)`, p the normalized eigenvalues of the features' covariance.

    It is d for d uncorrelated features of equal variance and 1 for a single direction (Roy and Vetterli 2007, on the
    covariance's eigenvalues).
    """
    flat = features.flatten(1)
    mean = mean_and_std(flat)[0][0]
    wide = flat.shape[1] > len(flat)
    gram = inner_products(flat, flat, mean) if wide else moments(flat, mean, flat[:, :0], mean[:0])[0]
    spectrum = torch.linalg.eigvalsh(gram).clamp_min(0)
    total = spectrum.sum()
    if total == 0:
        return 0.0
    weights = spectrum / total
    return float(torch.exp(torch.special.entr(weights).sum()))


def select_gallery(count: int) -> Tensor:
    """Return the places of the gallery's images among ``count`` private ones; the same in every case of a data set."""
    attacked = select_attacked(count, GALLERY)
    return torch.arange(count) if attacked is None else attacked


def to_bytes(images: Tensor) -> Tensor:
    """Turn [0, 1] into uint8 0-255, rounded."""
    return (images * 255).round().to(torch.uint8)
