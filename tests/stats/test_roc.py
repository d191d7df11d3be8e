import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sparseguard.stats import auc, mean_auc_interval

DISTANCES = st.lists(st.integers(0, 5), min_size=1, max_size=20).map(lambda values: np.array(values, dtype=float))


@given(near=DISTANCES, far=DISTANCES)
def test_auc_is_scikit_learns_with_ties(near, far):
    expected = roc_auc_score([1] * len(near) + [0] * len(far), -np.concatenate([near, far]))
    assert auc(near, far) == pytest.approx(expected)
    assert auc(near, far) + auc(far, near) == 1


def test_interval_is_that_of_a_slow_stratified_bootstrap():
    random = np.random.default_rng(0)
    classes = [(random.normal(size=20 + 9 * c), random.normal(0.5, 1.2, size=30)) for c in range(3)]
    slow = []
    for _ in range(4000):
        resampled = [[random.choice(side, len(side)) for side in pair] for pair in classes]
        slow.append(
            np.mean([np.mean(near[:, None] < far) + np.mean(near[:, None] == far) / 2 for near, far in resampled])
        )
    low, high = np.quantile(slow, (0.025, 0.975))
    assert mean_auc_interval(classes) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert mean_auc_interval(classes, seed=3) == mean_auc_interval(classes, seed=3)
    assert mean_auc_interval(classes, seed=3) != mean_auc_interval(classes, seed=4)


def test_of_single_images_and_of_sides_that_do_not_overlap_the_interval_is_a_point():
    assert mean_auc_interval([(np.array([1.0]), np.array([2.0]))]) == (1, 1)
    assert mean_auc_interval([(np.array([4.0, 5.0]), np.array([1.0, 2.0, 3.0]))]) == (0, 0)
