"""Training on fakes: what is added, and what it costs the model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Silent
from sparseguard.defenses.augmentation.gan import GenerativeAugmentation
from sparseguard.defenses.augmentation.gong import Gong
from sparseguard.defenses.combined import Combined
from sparseguard.targets import Fit, train
from sparseguard.types import ImageSet
from support.defense_inputs import built, part, prepared, step

QUICK = GenerativeAugmentation(epochs=1, ratio=0.5)


def test_the_pool_has_as_many_fakes_of_every_class_and_follows_from_the_seed() -> None:
    state = prepared(QUICK)
    assert state["fakes"].shape == (30, 1, 8, 8)
    assert state["fakes"].dtype == torch.uint8
    assert state["labels"].bincount().tolist() == [10, 10, 10]
    assert torch.equal(prepared(QUICK)["fakes"], state["fakes"])
    assert not torch.equal(prepared(QUICK, seed=1)["fakes"], state["fakes"])


@pytest.mark.parametrize(("ratio", "own", "added"), [(1.0, 7, 7), (0.5, 7, 4), (2.0, 5, 10), (0.1, 3, 0), (1.0, 0, 0)])
def test_fakes_come_behind_the_batch(ratio: float, own: int, added: int) -> None:
    pool = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 8, 8)
    state = {"fakes": pool, "labels": torch.arange(20) % 3}
    images, labels = part(own).images, part(own).labels
    defense = GenerativeAugmentation(ratio=ratio)
    random = torch.Generator().manual_seed(0)
    more, their = defense.transform(images, labels, state=state, epoch=0, generator=random)
    assert torch.equal(more[:own], images)
    assert torch.equal(their[:own], labels)
    assert len(more) == len(their) == own + added
    drawn = (more[own:, 0, 0, 0] * 255).round().long()
    assert torch.equal(their[own:], drawn % 3)  # each with its own label


def test_the_penalty_is_the_fakes_cross_entropy_and_has_a_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)
    labels, images = torch.arange(9) % 3, torch.rand(9, 1, 8, 8)
    defense = GenerativeAugmentation(weight=0.7)
    loss = defense.loss(step(images, labels, logits, 6))
    nats = -logits.detach().softmax(1).log()[torch.arange(9), labels]
    torch.testing.assert_close(loss.detach(), nats[:6].mean() + 0.7 * nats[6:].mean())
    (slope,) = torch.autograd.grad(loss, logits)
    one_hot = F.one_hot(labels, 3)
    expected = (logits.detach().softmax(1) - one_hot) * torch.tensor([1 / 6] * 6 + [0.7 / 3] * 3)[:, None]
    torch.testing.assert_close(slope, expected.double(), atol=1e-7, rtol=1e-6)
    assert defense.penalty(step(images, labels, logits, 9)) is None
    assert defense.penalty(step(images, labels, logits, None)) is None


def test_a_training_learns_the_fakes() -> None:
    labels = torch.arange(60) % 3
    rows = torch.zeros(60, 1, 8, 8, dtype=torch.uint8)
    rows[torch.arange(60), 0, labels] = 255
    private = ImageSet(pixels=rows, labels=labels, classes=("a", "b", "c"))
    state = {"fakes": rows.transpose(2, 3).flip(3), "labels": labels}

    def told(weight: float) -> float:
        defense, model = GenerativeAugmentation(weight=weight), built()
        fit = Fit(epochs=10, batch_size=10, lr=0.01, patience=None)
        device = torch.device("cpu")
        train(model, defense, state, private, fit, seed=1, device=device, progress=Silent(), label="t")
        return dict(defense.facts(model.eval(), private.images, state))["fakes_accuracy"]

    assert told(1.0) > 0.95
    assert told(0.0) < 0.9


def test_only_one_may_add_images_and_it_learns_beyond_gradients() -> None:
    with pytest.raises(RecipeError, match="both add images"):
        Combined({"gan": QUICK, "gong": Gong()})
    assert "GAN learns from private images" in QUICK.find_unaccounted_access()
