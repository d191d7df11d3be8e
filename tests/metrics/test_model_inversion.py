import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score, roc_auc_score, top_k_accuracy_score
from sklearn.neighbors import NearestNeighbors

from sparseguard.core.errors import DataError
from sparseguard.metrics.model_inversion import (
    agreement,
    attack_accuracy,
    balanced_indices,
    class_mean_interval,
    cohen_kappa,
    feature_distance,
    nearest_in_class,
    outlier_fraction,
    private_auc,
    relative_diversity,
)

LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=30).map(torch.tensor)


def cloud(count, seed, classes=3, d=5, shift=0.0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, d, generator=source) + shift, torch.arange(count) % classes


@given(seed=st.integers(0, 1000), k=st.integers(1, 4))
def test_attack_accuracy_is_scikit_learns(seed, k):
    source = torch.Generator().manual_seed(seed)
    logits, wanted = torch.randn(20, 5, generator=source), torch.randint(5, (20,), generator=source)
    expected = top_k_accuracy_score(wanted.numpy(), logits.numpy(), k=k, labels=range(5))
    assert float(attack_accuracy(logits, wanted, k).mean()) == pytest.approx(expected)


def test_a_constant_answer_reaches_nothing_and_all_answers_cannot_be_counted():
    constant = torch.zeros(6, 3)
    assert attack_accuracy(constant, torch.arange(6) % 3).sum() == 0
    for k in (0, 3):
        with pytest.raises(ValueError, match="k must be from 1 to 2"):
            attack_accuracy(constant, torch.zeros(6, dtype=torch.int64), k)


@given(seed=st.integers(0, 1000))
def test_agreement_and_kappa_are_scikit_learns(seed):
    source = torch.Generator().manual_seed(seed)
    first, second = (torch.rand(30, generator=source) < 0.6 for _ in range(2))
    first, second = first.float(), second.float()
    assert agreement(first, second) == pytest.approx(float((first == second).float().mean()))
    assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))


def test_kappa_of_constant_judgements_is_not_defined():
    assert cohen_kappa(torch.ones(4), torch.ones(4)) is None
    assert cohen_kappa(torch.ones(4), torch.zeros(4)) == 0
    with pytest.raises(ValueError, match="at least one"):
        cohen_kappa(torch.ones(0), torch.ones(0))


@pytest.mark.parametrize("k", [1, 3])
def test_distances_and_pairs_are_scikit_learns(k):
    (made, labels), (real, real_labels) = cloud(12, 0), cloud(40, 1)
    found, places = (
        feature_distance(made, labels, real, real_labels, k),
        nearest_in_class(made, labels, real, real_labels),
    )
    for row, label in enumerate(labels.tolist()):
        own = (real_labels == label).nonzero().squeeze(1)
        distances, at = NearestNeighbors(n_neighbors=k).fit(real[own].numpy()).kneighbors(made[[row]].numpy())
        assert float(found[row]) == pytest.approx(float((distances**2).mean()), rel=1e-5)
        assert int(places[row]) == int(own[at[0, 0]])


def test_of_equally_near_images_the_first_is_taken():
    real = torch.zeros(4, 2)
    assert nearest_in_class(torch.zeros(1, 2), torch.tensor([1]), real, torch.tensor([0, 1, 1, 1])).tolist() == [1]


def test_classes_without_enough_real_images_are_named():
    made, labels = cloud(3, 0)
    real, real_labels = cloud(2, 1)
    with pytest.raises(DataError, match="class 2 has no real images"):
        nearest_in_class(made, labels, real, real_labels)
    with pytest.raises(DataError, match="class 0 has 1 real images, a mean over 2"):
        feature_distance(made, labels, real, real_labels, 2)
    with pytest.raises(DataError, match="finite"):
        feature_distance(made * torch.nan, labels, real, real_labels)


@given(first=LABELS, second=LABELS, seed=st.integers(0, 100))
def test_pools_hold_every_class_equally_often(first, second, seed):
    one, other = balanced_indices(first, second, torch.Generator().manual_seed(seed))
    for label in range(4):
        count = min(int((first == label).sum()), int((second == label).sum()))
        assert int((first[one] == label).sum()) == int((second[other] == label).sum()) == count
    for places in (one, other):
        assert places.tolist() == sorted(set(places.tolist()))
    again = balanced_indices(first, second, torch.Generator().manual_seed(seed))
    assert torch.equal(again[0], one)
    assert torch.equal(again[1], other)


def test_the_auc_is_scikit_learns_averaged_over_classes():
    (made, labels), (private, ours), (unseen, theirs) = cloud(9, 0), cloud(30, 1), cloud(24, 2, shift=0.5)
    expected = []
    for label in range(3):
        own = NearestNeighbors(n_neighbors=1).fit(made[labels == label].numpy())
        near, far = (own.kneighbors(x[y == label].numpy())[0][:, 0] for x, y in ((private, ours), (unseen, theirs)))
        expected.append(roc_auc_score([1] * len(near) + [0] * len(far), -np.concatenate([near, far])))
    found = private_auc(made, labels, private, ours, unseen, theirs)
    assert found.value == pytest.approx(np.mean(expected))
    assert found.ci95[0] <= found.value <= found.ci95[1]
    assert (found.n_private, found.n_unseen) == (30, 24)


def test_copies_of_private_images_give_an_auc_of_one():
    (private, ours), (unseen, theirs) = cloud(30, 1), cloud(30, 2)
    found = private_auc(private, ours, private, ours, unseen, theirs)
    assert (found.value, *found.ci95) == pytest.approx((1, 1, 1))
    assert private_auc(private, ours, unseen, theirs, private, ours).value == 0


def test_the_interval_covers_one_half_when_nothing_is_to_be_told():
    covered = 0
    for seed in range(60):
        (made, labels), (private, ours), (unseen, theirs) = (
            cloud(count, 3 * seed + i) for i, count in enumerate((9, 60, 60))
        )
        low, high = private_auc(made, labels, private, ours, unseen, theirs).ci95
        covered += low <= 0.5 <= high
    assert 51 <= covered <= 60  # 95 % of 60 is 57


def test_an_auc_needs_all_three_kinds_in_one_class():
    made, labels = cloud(3, 0, classes=1)
    with pytest.raises(DataError, match="no class has"):
        private_auc(made, labels, made, labels + 1, made, labels + 1)


def test_far_from_is_the_obvious_count():
    (made, _), (real, _) = cloud(15, 0, shift=1.0), cloud(25, 1)
    usual = []
    for place, row in enumerate(real.double().numpy()):
        others = np.delete(real.double().numpy(), place, axis=0)
        usual.append(np.sqrt(((others - row) ** 2).sum(1)).min())
    limit = np.quantile(usual, 0.95)
    nearest = [np.sqrt(((real.double().numpy() - row) ** 2).sum(1)).min() for row in made.double().numpy()]
    assert outlier_fraction(made, real) == pytest.approx(np.mean(np.array(nearest) > limit))
    assert outlier_fraction(made + 1000, real) == 1
    assert outlier_fraction(cloud(500, 3)[0], cloud(500, 4)[0]) == pytest.approx(0.05, abs=0.06)
    with pytest.raises(DataError, match="at least two"):
        outlier_fraction(made, real[:1])


def test_collapse_is_one_for_real_images_and_zero_for_copies():
    source = torch.Generator().manual_seed(0)
    real, labels = torch.rand(12, 1, 4, 4, generator=source), torch.arange(12) % 3
    assert relative_diversity(real, labels, real, labels) == pytest.approx(1)
    copies = real[:3].repeat(4, 1, 1, 1)
    assert relative_diversity(copies, labels, real, labels) == 0
    assert relative_diversity(real.mean((2, 3), keepdim=True) + (real - 0.5) / 2, labels, real, labels) < 1
    with pytest.raises(ValueError, match="no class"):
        relative_diversity(real[:3], labels[:3], real, labels)


def test_an_interval_is_of_group_means_where_there_are_three():
    values, groups = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5, 0.5]), torch.tensor([0, 0, 1, 1, 2, 2])
    half = stats.t.ppf(0.975, 2) * np.std([0, 1, 0.5], ddof=1) / np.sqrt(3)
    assert class_mean_interval(values, groups) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    two = values[:4], groups[:4]
    half = stats.t.ppf(0.975, 3) * np.std([0, 0, 1, 1], ddof=1) / 2
    assert class_mean_interval(*two) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert class_mean_interval(values[:1], groups[:1]) == (0, 0, 0)
