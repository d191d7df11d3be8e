"""Scores of classes where they are easily wrong: ties, copies, broken numbers, parts of sets, nothing at all."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sparseguard.core.errors import DataError
from sparseguard.metrics import model_inversion as class_level
from sparseguard.metrics.model_inversion import (
    agreement,
    attack_accuracy,
    balanced_indices,
    class_mean_interval,
    feature_distance,
    nearest_in_class,
    outlier_fraction,
    private_auc,
    relative_diversity,
)
from sparseguard.numerics import nearest_neighbors

NONE = torch.zeros(0, dtype=torch.int64)


def cloud(count, seed, classes=3, d=5):
    return torch.randn(count, d, generator=torch.Generator().manual_seed(seed)), torch.arange(count) % classes


def grid(count, seed, classes=3):
    """Points with whole coordinates, so that many distances are equal."""
    source = torch.Generator().manual_seed(seed)
    return torch.randint(3, (count, 2), generator=source).float(), torch.arange(count) % classes


def test_broken_logits_do_not_count_as_reached():
    for broken in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(DataError, match="logits must be finite"):
            attack_accuracy(torch.full((4, 3), broken), torch.zeros(4, dtype=torch.int64))


def test_a_tie_counts_only_where_all_that_tie_are_among_the_k():
    logits = torch.tensor([[2.0, 2.0, 1.0, 0.0]] * 2)
    assert attack_accuracy(logits, torch.tensor([0, 1]), 1).tolist() == [0, 0]
    assert attack_accuracy(logits, torch.tensor([0, 1]), 2).tolist() == [1, 1]


@given(seed=st.integers(0, 500))
def test_the_nearest_is_the_first_of_the_slow_loop(seed):
    (made, labels), (real, real_labels) = grid(9, seed), grid(30, seed + 1)
    places = nearest_in_class(made, labels, real, real_labels)
    for row, label, place in zip(made.numpy(), labels.tolist(), places.tolist(), strict=True):
        own = np.flatnonzero(real_labels.numpy() == label)
        assert place == own[((real.numpy()[own] - row) ** 2).sum(1).argmin()]  # numpy's argmin is the first


@pytest.mark.parametrize("offset", [0, 1000])
def test_copies_are_equally_far_however_many_there_are(offset):
    (made, _), (few, _) = cloud(40, 0, d=33), cloud(7, 1, d=33)
    real = few.repeat(30, 1) + offset
    places = nearest_in_class(made + offset, torch.zeros_like(torch.arange(40)), real, torch.zeros(210).long())
    assert int(places.max()) < 7


def test_the_distance_to_a_copy_is_zero_and_to_a_near_copy_is_not():
    real, labels = cloud(60, 0, classes=1, d=64)
    real = real + 100
    assert feature_distance(real, labels, real, labels).tolist() == [0] * 60
    moved = real.double()
    moved[:, 0] += 1e-3
    assert feature_distance(moved.float(), labels, real, labels) == pytest.approx(
        (moved.float() - real)[:, 0].square().numpy(), rel=1e-6
    )


def test_parts_of_a_set_give_what_the_whole_gives(monkeypatch):
    made, private, unseen = cloud(31, 0), cloud(50, 1), cloud(44, 2)
    images, real = torch.rand(20, 1, 3, 3, generator=torch.Generator().manual_seed(3)), private[0][:, :1, None, None]
    real = real.expand(-1, 1, 3, 3) * torch.arange(9.0).view(3, 3)

    def everything():
        return [
            *feature_distance(*made, *private, 2).tolist(),
            *nearest_in_class(*made, *private).tolist(),
            outlier_fraction(made[0] + 0.5, private[0]),
            relative_diversity(images, made[1][:20], real, private[1]),
            (found := private_auc(*made, *private, *unseen)).value,
            *found.ci95,
        ]

    whole = everything()
    for module in (class_level, nearest_neighbors):
        monkeypatch.setattr(module, "CHUNK", 4)
    assert everything() == pytest.approx(whole, rel=1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 200))
def test_the_auc_with_many_ties_is_scikit_learns(seed):
    (made, labels), (private, ours), (unseen, theirs) = grid(6, seed), grid(21, seed + 1), grid(15, seed + 2)
    expected = []
    for label in range(3):
        own = made[labels == label].numpy()
        near, far = (
            np.sqrt(((x[y == label].numpy()[:, None] - own) ** 2).sum(2)).min(1)
            for x, y in ((private, ours), (unseen, theirs))
        )
        expected.append(roc_auc_score([1] * len(near) + [0] * len(far), -np.concatenate([near, far])))
    found = private_auc(made, labels, private, ours, unseen, theirs)
    assert found.value == pytest.approx(np.mean(expected))
    back = private_auc(made, labels, unseen, theirs, private, ours)
    assert found.value + back.value == pytest.approx(1)


def test_the_same_images_on_both_sides_give_one_half():
    (made, labels), (real, ours) = cloud(30, 0, d=40), cloud(64, 1, d=40)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    assert private_auc(made + 50, labels, real + 50, ours, real[order] + 50, ours[order]).value == 0.5


def test_classes_weigh_equally_in_the_auc_whatever_their_size():
    made, labels = torch.tensor([[0.0], [100.0]]), torch.tensor([0, 1])
    private, ours = torch.tensor([[1.0]] * 9 + [[109.0]]), torch.tensor([0] * 9 + [1])
    unseen, theirs = torch.tensor([[2.0]] * 9 + [[101.0]]), torch.tensor([0] * 9 + [1])
    assert private_auc(made, labels, private, ours, unseen, theirs).value == 0.5  # 1 and 0, not 81 of 82


def test_the_aucs_interval_is_that_of_a_slow_bootstrap():
    (made, labels), (private, ours), (unseen, theirs) = cloud(6, 0), cloud(45, 1), cloud(36, 2)
    unseen = unseen * 1.3
    sides = []
    for label in range(3):
        own = made[labels == label].numpy()
        sides.append(
            [
                np.sqrt(((x[y == label].numpy()[:, None] - own) ** 2).sum(2)).min(1)
                for x, y in ((private, ours), (unseen, theirs))
            ]
        )
    random = np.random.default_rng(0)
    slow = []
    for _ in range(4000):
        drawn = [[random.choice(side, len(side)) for side in pair] for pair in sides]
        slow.append(np.mean([np.mean(near[:, None] < far) for near, far in drawn]))
    found = private_auc(made, labels, private, ours, unseen, theirs).ci95
    width = np.subtract(*np.quantile(slow, [0.975, 0.025]))
    assert found == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.1 * width)


def test_the_auc_is_reproducible():
    made, private, unseen = cloud(9, 0), cloud(30, 1), cloud(30, 2)
    assert private_auc(*made, *private, *unseen) == private_auc(*made, *private, *unseen)


def test_every_image_of_a_class_is_drawn_as_often():
    first, second = torch.zeros(12, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
    source = torch.Generator().manual_seed(0)
    drawn = torch.cat([balanced_indices(first, second, source)[0] for _ in range(1200)]).bincount(minlength=12)
    # 1,200 draws of 4 of 12: mean 400, deviation sqrt(1,200 / 3 * 2 / 3) = 16.3
    assert drawn.min() > 400 - 4.5 * 16.3
    assert drawn.max() < 400 + 4.5 * 16.3


def test_far_from_is_the_same_far_from_the_origin():
    (made, _), (real, _) = (cloud(count, seed) for seed, count in enumerate((40, 60)))
    made, real = made.double() * 1.5, real.double()
    assert 0 < outlier_fraction(made, real) < 1
    assert outlier_fraction(made + 10_000, real + 10_000) == outlier_fraction(made, real)


def test_collapse_is_the_slow_loop():
    source = torch.Generator().manual_seed(0)
    images, real = torch.rand(9, 3, 4, 4, generator=source) * 0.3, torch.rand(14, 3, 4, 4, generator=source)
    labels, real_labels = torch.arange(9) % 2, torch.arange(14) % 2

    def spread(x):
        return np.mean([np.sqrt(np.mean((a - b) ** 2)) for i, a in enumerate(x) for b in x[:i]])

    expected = np.min(
        [spread(images[labels == c].double().numpy()) / spread(real[real_labels == c].double().numpy()) for c in (0, 1)]
    )
    assert relative_diversity(images, labels, real, real_labels) == pytest.approx(expected)


def test_classes_whose_real_images_are_all_the_same_do_not_count():
    source = torch.Generator().manual_seed(0)
    images, labels = torch.rand(8, 1, 2, 2, generator=source), torch.arange(8) % 2
    real = images.clone()
    real[labels == 0] = 0.5
    assert relative_diversity(images, labels, real, labels) == pytest.approx(1)
    with pytest.raises(ValueError, match="real ones that differ"):
        relative_diversity(images, labels, torch.full_like(images, 0.5), labels)
    with pytest.raises(DataError, match="finite"):
        relative_diversity(images * torch.nan, labels, images, labels)


def test_an_interval_of_broken_values_is_refused():
    with pytest.raises(DataError, match="1 are not"):
        class_mean_interval(torch.tensor([torch.nan, 1.0]), torch.tensor([0, 1]))


def test_groups_weigh_equally_in_the_mean():
    assert class_mean_interval(torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([0, 0, 0, 1]))[0] == 0.5


def test_nothing_is_refused():
    features, labels = cloud(6, 0)
    empty = features[:0]
    calls = (
        lambda: attack_accuracy(empty, NONE),
        lambda: agreement(torch.zeros(0), torch.zeros(0)),
        lambda: feature_distance(empty, NONE, features, labels),
        lambda: nearest_in_class(empty, NONE, features, labels),
        lambda: private_auc(empty, NONE, features, labels, features, labels),
        lambda: outlier_fraction(empty, features),
        lambda: relative_diversity(torch.zeros(0, 1, 2, 2), NONE, torch.zeros(0, 1, 2, 2), NONE),
        lambda: class_mean_interval(torch.zeros(0), NONE),
    )
    for call in calls:
        with pytest.raises((ValueError, DataError)):
            call()
    assert [len(side) for side in balanced_indices(NONE, labels, torch.Generator())] == [0, 0]


def test_what_cannot_be_compared_is_refused():
    (features, labels), (others, _) = cloud(6, 0), cloud(6, 1, d=4)
    calls = (
        lambda real: feature_distance(features, labels, real, labels),
        lambda real: nearest_in_class(features, labels, real, labels),
        lambda real: private_auc(features, labels, features, labels, real, labels),
        lambda real: outlier_fraction(features, real),
    )
    for call in calls:
        with pytest.raises(DataError, match="4 and of 5 dimensions"):
            call(others)
        with pytest.raises(DataError, match="finite"):
            call(features * torch.nan)
    with pytest.raises(ValueError, match="k must be at least 1"):
        feature_distance(features, labels, features, labels, 0)
