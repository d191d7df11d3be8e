from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparseguard.defenses.regularization.negative_label_smoothing import NegativeLabelSmoothing, smoothing_term
from sparseguard.types import BatchContext


def drawn(n: int = 5, k: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, k, generator=source, dtype=torch.float64), torch.randint(k, (n,), generator=source)


def step(logits: Tensor, labels: Tensor, elapsed: float, own_count: int | None = None) -> BatchContext:
    images = torch.zeros(len(labels), 1, 2, 2)
    return BatchContext(
        images=images,
        labels=labels,
        outputs={"head": logits},
        logits=logits,
        state={},
        epoch=0,
        phase="train",
        own_count=own_count,
        elapsed_fraction=elapsed,
    )


@given(seed=st.integers(0, 1000), amount=st.floats(0, 1), n=st.integers(1, 6), k=st.integers(2, 7))
def test_with_a_positive_amount_it_is_label_smoothing(seed: int, amount: float, n: int, k: int) -> None:
    logits, labels = drawn(n, k, seed)
    ours = F.cross_entropy(logits, labels) + amount * smoothing_term(logits, labels)
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=amount))


@pytest.mark.parametrize("amount", [-0.05, -0.5, -3.0])
def test_with_a_negative_amount_it_is_the_textbook_form(amount: float) -> None:
    logits, labels = drawn()
    component = NegativeLabelSmoothing(amount=amount)
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        norm = math.log(sum(math.exp(value) for value in row))
        for k, value in enumerate(row):
            target = (1 - amount) * (k == label) + amount / len(row)
            total += target * (norm - value) / len(labels)
    assert float(component.loss(step(logits, labels, elapsed=0.9))) == pytest.approx(total)


def test_gradients_pull_the_targets_apart() -> None:
    logits, labels = drawn()
    logits.requires_grad_()
    NegativeLabelSmoothing(amount=-0.2).loss(step(logits, labels, elapsed=1.0)).backward()
    targets = 1.2 * F.one_hot(labels, 4) - 0.2 / 4
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(1) - targets) / len(labels))


def test_it_grows_linearly_and_stays() -> None:
    component = NegativeLabelSmoothing(amount=-0.2, start=0.4, full=0.8)
    shares = torch.linspace(0, 1, 11, dtype=torch.float64)
    expected = -0.2 * ((shares - 0.4) / 0.4).clamp(0, 1)
    torch.testing.assert_close(torch.tensor([component.compute_amount(s) for s in shares.tolist()]).double(), expected)
    at_once = NegativeLabelSmoothing(start=0.5, full=0.5)
    assert (at_once.compute_amount(0.49), at_once.compute_amount(0.5)) == (0, at_once.amount)


def test_only_the_batchs_own_images_count() -> None:
    logits, labels = drawn()
    component = NegativeLabelSmoothing(start=0.0, full=0.0)
    alone = component.penalty(step(logits[:2], labels[:2], elapsed=0.0))
    torch.testing.assert_close(component.penalty(step(logits, labels, elapsed=0.0, own_count=2)), alone)
    assert component.penalty(step(logits[:0], labels[:0], elapsed=0.0)) is None
    assert NegativeLabelSmoothing().penalty(step(logits, labels, elapsed=0.3)) is None


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="full must not be before start"):
        NegativeLabelSmoothing(start=0.8, full=0.5)
    with pytest.raises(ValueError, match="less than 0"):
        NegativeLabelSmoothing(amount=0.1)
