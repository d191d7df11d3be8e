import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from sparseguard.attacks.model_inversion._losses import (
    CLAMP,
    LOSSES,
    XI,
    cross_entropy,
    is_clamped,
    max_margin,
    poincare,
)


def answers(count=20, classes=10, seed=0):
    source = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=source, dtype=torch.float64) * 3
    return logits, torch.randint(classes, (count,), generator=source)


def slow_poincare(logits, wanted):
    """The formula, one number after the other, with numpy's own arcosh."""
    distances = []
    for row, label in zip(logits.numpy(), wanted.tolist(), strict=True):
        u = row / np.abs(row).sum()
        v = np.clip(np.eye(len(row))[label] - XI, 0, 1)
        inside = max(1 - (u**2).sum(), CLAMP) * (1 - (v**2).sum())
        distances.append(np.arccosh(1 + 2 * ((u - v) ** 2).sum() / inside))
    return np.array(distances)


def test_poincare_is_the_formula():
    logits, wanted = answers()
    np.testing.assert_allclose(poincare(logits, wanted).numpy(), slow_poincare(logits, wanted), rtol=1e-12)


@pytest.mark.parametrize(("classes", "expected"), [(2, 0.96), (10, 2.30), (1000, 6.86)])
def test_poincare_near_one_hot_depends_on_the_number_of_classes(classes, expected):
    logits = torch.full((1, classes), 1e-4, dtype=torch.float64)
    logits[0, 0] = 1.0
    assert float(poincare(logits, torch.tensor([0]))) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("label", [0, 1])
def test_poincare_and_its_gradient_are_finite_at_a_one_hot_answer(scale, label):
    logits = torch.tensor([[scale, 0.0, 0.0]], requires_grad=True)
    loss = poincare(logits, torch.tensor([label]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()
    assert is_clamped(logits.detach()).tolist() == [1.0]


def test_no_answer_at_all_is_finite_too():
    logits = torch.zeros(2, 4, requires_grad=True)
    poincare(logits, torch.tensor([0, 3])).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert is_clamped(logits.detach()).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    logits, wanted = answers(6, 5)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, wanted), (logits.requires_grad_(),))


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 12))
def test_an_answers_loss_does_not_depend_on_others(name, seed, classes):
    logits, wanted = answers(5, classes, seed)
    alone = torch.cat([LOSSES[name](logits[[row]], wanted[[row]]) for row in range(5)])
    torch.testing.assert_close(LOSSES[name](logits, wanted), alone)


def test_cross_entropy_is_scikit_learns():
    logits, wanted = answers()
    expected = cross_entropy(logits, wanted)
    for row in range(len(logits)):
        probabilities = F.softmax(logits[[row]], 1).numpy()
        assert float(expected[row]) == pytest.approx(log_loss(wanted[[row]].numpy(), probabilities, labels=range(10)))


@given(seed=st.integers(0, 10_000))
def test_max_margin_is_negative_just_where_the_class_is_answered(seed):
    logits, wanted = answers(8, 4, seed)
    expected = [
        max(float(row[other]) for other in range(4) if other != label) - float(row[label])
        for row, label in zip(logits, wanted.tolist(), strict=True)
    ]
    result = max_margin(logits, wanted)
    assert result.tolist() == pytest.approx(expected)
    assert ((result < 0) == (logits.argmax(1) == wanted)).all()
