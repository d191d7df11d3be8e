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
"""Of scores, choices and comparisons: this file, `comparing` and `set_scores`."""


def scored_parts(splits: Splits) -> tuple[str, ...]:
    """Return the parts that are reconstructed: in layout ``paper`` the attacker trained on the test images."""
    return ("private", "auxiliary_val") if splits.layout == "paper" else ("private", "test", "auxiliary_val")


def pools(splits: Splits) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return, by part, the pixels a reconstruction has to be told apart from, and its original's place among them.

    Private and test reconstructions face the private images; each test image takes the place of one of them, so that N
    is the same for both. On auxiliary_val, where attackers are chosen, the pool is
    auxiliary: an attacker has no private images to choose with.
    """
    private = splits.private.pixels
    return {
        "private": (private, torch.arange(len(private))),
        "test": (private, torch.arange(len(splits.test)) % len(private)),
        "auxiliary_val": (splits.auxiliary.pixels, None),
    }


def identification_sizes(splits: Splits) -> dict[str, int]:
    """Return N of id@1 by part; chance is 1/N."""
    sizes = {part: len(pool) + (own is None) for part, (pool, own) in pools(splits).items()}
    return {part: sizes[part] for part in scored_parts(splits)}


def score(
    reconstructions: Mapping[str, Tensor], splits: Splits, index: Mapping[str, Tensor | None]
) -> dict[str, dict[str, Tensor]]:
    """Return every metric of every part per image: part -> metric -> ``(n,)``; ``index`` says of which images."""
    parts, against = splits.by_name(), pools(splits)
    scores = {}
    for part, images in reconstructions.items():
        places = index[part]
        every = torch.arange(len(parts[part])) if places is None else places
        originals, (pool, own) = parts[part].batch(every), against[part]
        own = None if own is None else own[every]
        scores[part] = {name: metric.compute(images, originals, pool, own) for name, metric in METRICS.items()}
    return scores


def summarize(values: Tensor) -> Summary:
    """Return mean, spread, a normal 95 % interval of the mean over images, and quantiles."""
    scores = values.double().numpy()
    mean, std = float(scores.mean()), float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    low, middle, high = (float(value) for value in np.quantile(scores, (0.05, 0.5, 0.95)))
    return Summary(mean=mean, std=std, ci95=normal_interval(mean, std, len(scores)), quantiles=(low, middle, high), n=len(scores))


def choose(contenders: Sequence[Contender]) -> list[Choice]:
    """Return, by knowledge, number of queries and metric, the attack with the best mean on auxiliary_val.

    Means are over the images that all attacks of the same knowledge and number of queries attacked.
    """
    chosen: list[Choice] = []
    for knowledge, queries in dict.fromkeys((one.knowledge, one.queries) for one in contenders):
        rivals = [one for one in contenders if (one.knowledge, one.queries) == (knowledge, queries)]
        shared = set.intersection(*(set(rival.indices["auxiliary_val"]) for rival in rivals))
        for metric in METRICS:
            means = {rival.name: rival.mean("auxiliary_val", metric, shared) for rival in rivals}
            best = max(means, key=lambda name: METRICS[metric].leakage(means[name]))
            chosen.append(Choice(knowledge=knowledge.value, queries=queries, metric=metric, attack=best))
    return chosen


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """An attack's scores per image and the images' indices in their splits."""

    name: str
    knowledge: Knowledge
    queries: int
    indices: Mapping[str, list[int]]
    scores: Mapping[str, Mapping[str, Tensor]]

    def mean(self, part: str, metric: str, shared: set[int]) -> float:
        """Return the mean over the images at ``shared`` places."""
        return float(self.at(part, metric, shared).mean())

    def at(self, part: str, metric: str, shared: set[int]) -> Tensor:
        """Return the scores of the images at ``shared`` places, in their order."""
        keep = torch.tensor([place in shared for place in self.indices[part]])
        return self.scores[part][metric][keep].double()


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
    share = spectrum / total
    return float(torch.exp(torch.special.entr(share).sum()))


def gallery_index(count: int) -> Tensor:
    """Return the places of the gallery's images among ``count`` private ones; the same in every case of a data set."""
    places = select_attacked(count, GALLERY)
    return torch.arange(count) if places is None else places


def as_bytes(images: Tensor) -> Tensor:
    """Turn [0, 1] into uint8 0-255, rounded."""
    return (images * 255).round().to(torch.uint8)
