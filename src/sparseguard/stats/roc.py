"""Area under the ROC curve, averaged over classes, with its bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sparseguard.stats.bootstrap import Interval

RESAMPLES = 1000
_BATCH = 1 << 20
"""Distances drawn at a time; ranking them takes some tens of bytes each."""

Distances = Float[np.ndarray, " _"]


def auc(near: Distances, far: Distances) -> float:
    """Return the share of pairs with near < far, ties half: 1 where all of near are lower, 0.5 where they are alike.

    Source: the Mann-Whitney statistic.

    Example:
        >>> import numpy as np
        >>> auc(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
        0.875
    """
    return float(_auc(near[None], far[None])[0])


def mean_auc_interval(classes: Sequence[tuple[Distances, Distances]], seed: int = 0) -> Interval:
    """Return the percentile bootstrap 95 % interval of the mean over classes of `auc`, by scipy, with 1,000 resamples.

    Images are drawn within each class and side. The interval shrinks to a point where every class's value is 0 or 1,
    and of one image on either side it says nothing of that side.

    Args:
        classes: distances near and far, a pair a class; at least one class.
        seed: of the draws.
    """
    import scipy.stats  # 0.7 s, needed here only

    def statistic(*samples: Float[np.ndarray, "..."], axis: int) -> Float[np.ndarray, "..."]:  # noqa: ARG001
        values = [_auc(near, far) for near, far in zip(samples[::2], samples[1::2], strict=True)]
        means: Float[np.ndarray, "..."] = np.mean(values, axis=0)
        return means

    # scipy refuses samples of one value; twice the same value gives the same area
    samples = [side if len(side) > 1 else side.repeat(2) for pair in classes for side in pair]
    interval = scipy.stats.bootstrap(
        samples,
        statistic,
        axis=-1,
        vectorized=True,
        method="percentile",
        n_resamples=RESAMPLES,
        batch=max(1, _BATCH // sum(map(len, samples))),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _auc(near: Float[np.ndarray, "*batch n"], far: Float[np.ndarray, "*batch m"]) -> Float[np.ndarray, "*batch"]:
    from scipy.stats import rankdata

    n, m = near.shape[-1], far.shape[-1]
    ranks = rankdata(np.concatenate([near, far], axis=-1), axis=-1)[..., n:]
    area: Float[np.ndarray, "*batch"] = (ranks.sum(-1) - m * (m + 1) / 2) / (n * m)
    return area
