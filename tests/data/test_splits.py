"""The split: every image in one part, every part like the whole, and always the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseguard.core.errors import DataError
from sparseguard.data.splits import SPLIT_PERCENTAGES, balanced_index, balanced_subset, largest_remainder, partition
from sparseguard.types import ImageSet


def numbered(labels) -> ImageSet:
    """Images that carry their own number in their four pixels."""
    count = len(labels)
    number = np.arange(count, dtype="<u4").view(np.uint8).reshape(count, 1, 2, 2)
    classes = tuple(f"class {label}" for label in range(max(labels) + 1))
    return ImageSet(pixels=torch.from_numpy(number), labels=torch.tensor(labels), classes=classes)


def numbers(images: ImageSet) -> list[int]:
    return images.pixels.contiguous().numpy().reshape(len(images), 4).view("<u4").ravel().tolist()


def parted(images, layout="sparseguard"):
    return partition(images, name="numbers", layout=layout, flips_keep_class=False)


label_lists = st.lists(st.integers(0, 5), min_size=40, max_size=400)


@given(labels=label_lists)
def test_every_image_is_in_exactly_one_part(labels):
    parts = parted(numbered(labels)).by_name()
    assert sorted(number for part in parts.values() for number in numbers(part)) == list(range(len(labels)))
    for part in parts.values():
        assert part.labels.tolist() == [labels[number] for number in numbers(part)]


@given(labels=label_lists)
def test_part_sizes_are_their_shares(labels):
    for part, images in parted(numbered(labels)).by_name().items():
        assert abs(len(images) - SPLIT_PERCENTAGES[part] * len(labels) / 100) < 1


@given(classes=st.integers(1, 12), each=st.integers(10, 60))
def test_classes_of_one_size_differ_by_at_most_one_image_in_every_part(classes, each):
    labels = [label for label in range(classes) for _ in range(each)]
    if len(labels) < 40:
        labels *= 4
    for images in parted(numbered(labels)).by_name().values():
        counts = images.labels.bincount(minlength=classes)
        assert counts.max() - counts.min() <= 1


@given(labels=label_lists)
def test_unequal_classes_keep_their_proportions(labels):
    whole = np.bincount(labels, minlength=6)
    for part, images in parted(numbered(labels)).by_name().items():
        ideal = whole * SPLIT_PERCENTAGES[part] / 100
        assert np.abs(images.labels.bincount(minlength=6).numpy() - ideal).max() < 3


@given(labels=label_lists)
def test_the_paper_layout_gives_the_attacker_all_that_is_not_private(labels):
    splits = parted(numbered(labels), "paper")
    attacker = numbers(splits.auxiliary) + numbers(splits.auxiliary_val)
    assert sorted(attacker + numbers(splits.private)) == list(range(len(labels)))
    assert sorted(numbers(splits.tuning)) == sorted(numbers(splits.test)) == sorted(attacker)
    assert abs(len(splits.private) - 0.7 * len(labels)) < 1
    assert abs(len(splits.auxiliary_val) - 0.03 * len(labels)) < 1


@pytest.mark.parametrize("layout", ["sparseguard", "paper"])
def test_the_split_is_the_same_on_every_call_and_draws_nothing_from_the_global_generators(layout):
    images = numbered([label for label in range(10) for _ in range(50)])
    torch.manual_seed(1)
    first = parted(images, layout).fingerprints()
    torch.manual_seed(2)
    assert parted(images, layout).fingerprints() == first


def test_the_split_is_the_one_of_the_first_release():
    splits = parted(numbered([number % 3 for number in range(100)]))
    assert numbers(splits.test) == [46, 57, 3, 61, 87, 44, 92, 50, 73]
    assert numbers(balanced_subset(splits.private, 6, what="private")) == [64, 42, 17, 98, 12, 31]


def test_parts_are_shuffled():
    images = numbered([label for label in range(10) for _ in range(100)])
    for part in parted(images).by_name().values():
        assert numbers(part) != sorted(numbers(part))
        assert len(set(part.labels[:10].tolist())) > 2


def test_a_set_too_small_to_be_parted_is_refused():
    with pytest.raises(DataError, match="too small"):
        parted(numbered([0, 1, 0, 1]))


@settings(max_examples=50)
@given(labels=label_lists, data=st.data())
def test_subsets_are_nested_and_keep_the_order(labels, data):
    images = numbered(labels)
    large = data.draw(st.integers(len(images.classes), len(labels)))
    small = data.draw(st.integers(len(images.classes), large))
    outer, inner = (numbers(balanced_subset(images, size, what="numbers")) for size in (large, small))
    assert len(inner) == small
    assert set(inner) <= set(outer)
    assert inner == [number for number in outer if number in set(inner)]


@given(labels=label_lists, data=st.data())
def test_subsets_have_all_classes_equally_often_while_they_last(labels, data):
    images = numbered(labels)
    size = data.draw(st.integers(len(images.classes), len(labels)))
    have = images.labels.bincount()
    got = balanced_subset(images, size, what="numbers").labels.bincount(minlength=len(have))
    unspent = got[got < have]
    assert (got <= have).all()
    assert len(unspent) == 0 or got.max() - unspent.min() <= 1


def test_a_subset_is_drawn_not_cut_off():
    images = numbered([label for label in range(2) for _ in range(100)])
    assert max(numbers(balanced_subset(images, 20, what="numbers"))) > 110


@pytest.mark.parametrize(("size", "message"), [(7, "asked for 7 images, there are 6"), (1, "of 2 classes")])
def test_a_subset_that_cannot_be_had_is_refused(size, message):
    with pytest.raises(DataError, match=message):
        balanced_subset(numbered([0, 1] * 3), size, what="numbers")


@given(weights=st.lists(st.integers(0, 10**6), min_size=1, max_size=20).filter(any), total=st.integers(0, 10**6))
def test_largest_remainder_adds_up_and_rounds_by_less_than_one(weights, total):
    rounded = largest_remainder(np.array(weights), total)
    assert rounded.sum() == total
    assert np.abs(rounded - np.array(weights) * total / sum(weights)).max() < 1 + 1e-9


def test_an_order_of_no_labels_is_empty():
    assert balanced_index(np.array([], dtype=np.int64)).tolist() == []
