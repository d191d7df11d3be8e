"""Planted and inverted images, elastic weight consolidation, and training in two phases."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import StagedModel
from sparseguard.defenses.augmentation._ewc import compute_consolidation, compute_fisher_diagonal
from sparseguard.defenses.augmentation._gong_images import (
    compute_repulsion,
    draw_derangement,
    invert_model,
    sample_typical_images,
    train_classifier,
)
from sparseguard.defenses.augmentation.gong import Gong, Misleading
from sparseguard.defenses.augmentation.gong_continual import GongContinual
from sparseguard.defenses.base import Budget, Context
from sparseguard.defenses.sparse_coding.sca import SparseCodingArchitecture
from sparseguard.generators import ConditionalGenerator
from sparseguard.targets import BACKBONES, Fit, train
from sparseguard.types import EpochContext, ImageSet
from support.defense_inputs import BLUEPRINT, built, part, prepared, step

CPU = torch.device("cpu")
OPTIONS: dict[str, Any] = {"epochs": 1, "inverted": 12, "steps": 3}
both = pytest.mark.parametrize("kind", [Gong, GongContinual])


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moment(model: StagedModel, state: Any, phase: str = "mislead", starts_phase: bool = True) -> EpochContext:
    return EpochContext(
        model=model.eval(),
        images=part(),
        state=state,
        epoch=1,
        phase=phase,
        starts_phase=starts_phase,
        seed=5,
        device=CPU,
    )


def fitted(defense: Misleading, epochs: int = 2, **options: Any) -> StagedModel:
    model, state = built(), prepared(defense)
    fit = Fit(epochs=epochs, batch_size=10, patience=None, **options)
    train(model, defense, state, part(), fit, seed=1, device=CPU, progress=Silent(), label="t")
    return model.eval()


@given(st.integers(2, 30), st.integers(0, 1000))
def test_every_class_gets_another_one(count: int, seed: int) -> None:
    classes = torch.arange(count) * 3
    others = draw_derangement(classes, random(seed))
    assert torch.equal(others.sort().values, classes)
    assert not (others == classes).any()


def test_the_public_classifier_learns() -> None:
    images = part(90)
    bright = ImageSet(
        pixels=(images.pixels + images.labels.view(-1, 1, 1, 1)) / 3, labels=images.labels, classes=images.classes
    )
    judge = train_classifier(bright, epochs=30, seed=0, device=CPU)
    assert float((judge(bright.images * 2 - 1).argmax(1) == bright.labels).float().mean()) > 0.9


def test_the_images_that_are_planted_are_those_the_judge_is_surest_of() -> None:
    generator = ConditionalGenerator((1, 8, 8), 3, latent=4, width=4).eval()
    judge = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    found = sample_typical_images(generator, judge, 2, 5, 4, random())
    everything = generator.sample(torch.full((20,), 2), random())
    sure = judge(everything * 2 - 1).softmax(1)[:, 2].tolist()
    best = sorted(range(20), key=lambda place: -sure[place])[:5]
    torch.testing.assert_close(found, everything[best])


def test_inverting_makes_the_victim_sure_and_leaves_its_gradients_alone() -> None:
    torch.manual_seed(0)
    generator = ConditionalGenerator((1, 8, 8), 3, latent=6, width=4).eval()
    victim = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 3))
    labels = torch.arange(30) % 3

    def unsure(steps: int) -> float:
        images = invert_model(victim, generator, labels, steps=steps, rate=0.05, random=random())
        return F.cross_entropy(victim(images), labels).item()

    before = F.cross_entropy(victim(generator.sample(labels, random())), labels).item()
    assert unsure(60) < unsure(5) < before
    assert all(weight.grad is None for weight in victim.parameters())


@given(st.integers(2, 6), st.integers(0, 100))
def test_away_from_class_is_its_formula(classes: int, seed: int) -> None:
    logits = (3 * torch.randn(5, classes, generator=random(seed), dtype=torch.float64)).requires_grad_()
    labels = torch.arange(5) % classes
    p = logits.softmax(1)[torch.arange(5), labels]
    torch.testing.assert_close(compute_repulsion(logits, labels), -(1 - p).log().mean())
    assert torch.autograd.gradcheck(lambda value: compute_repulsion(value, labels), logits)


def test_away_from_class_of_a_sure_answer_is_finite() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    value = compute_repulsion(logits, torch.tensor([0]))
    (slope,) = torch.autograd.grad(value, logits)
    assert value.item() == pytest.approx(200 - torch.tensor(2.0).log().item())
    torch.testing.assert_close(slope, torch.tensor([[1.0, -0.5, -0.5]]))


def test_fisher_of_logistic_regression_is_its_closed_form() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    images, labels = torch.rand(20, 1, 8, 8, dtype=torch.float64), torch.arange(20) % 3
    x = images.flatten(1)
    wrong = model(images).softmax(1).detach() - F.one_hot(labels, 3)
    fisher = compute_fisher_diagonal(model, images, labels)
    torch.testing.assert_close(fisher["1.weight"], wrong.square().T @ x.square() / 20)
    torch.testing.assert_close(fisher["1.bias"], wrong.square().mean(0))


def test_labels_of_its_own_give_the_fisher_information() -> None:
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double(), torch.rand(1, 1, 8, 8, dtype=torch.float64)
    p = model(images).softmax(1).detach()
    labels = torch.multinomial(p, 4000, replacement=True, generator=random()).squeeze(0)
    fisher = compute_fisher_diagonal(model, images.expand(4000, -1, -1, -1), labels)
    torch.testing.assert_close(fisher["1.bias"], (p * (1 - p))[0], rtol=0.1, atol=0)  # the variance of a one-hot label


def _normed(sparse: bool) -> StagedModel:
    if not sparse:
        return BLUEPRINT.replace("stem", lambda _: nn.BatchNorm2d(1)).build((1, 8, 8), len)
    defense = SparseCodingArchitecture(features=(3, 3), kernel_size=3, steps=(3, 3), hebbian=False)
    return defense.edit_blueprint(BACKBONES["linear-shallow"](width=8).blueprint(3), {}).build((1, 8, 8), len)


@pytest.mark.parametrize("sparse", [False, True])
def test_fisher_is_the_mean_of_squared_gradients_of_single_images(sparse: bool) -> None:
    model, images = _normed(sparse), part(6)
    with torch.no_grad():
        model.train()(images.images)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fisher = compute_fisher_diagonal(model, images.images, images.labels)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    twin = copy.deepcopy(model)
    squares = {name: [] for name, weight in twin.named_parameters() if weight.requires_grad}
    for number in range(6):
        twin.zero_grad()
        (-twin(images.images[number : number + 1]).log_softmax(1)[0, images.labels[number]]).backward()
        for name, weight in twin.named_parameters():
            if weight.requires_grad:
                squares[name].append(weight.grad.square())
    assert set(fisher) == set(squares)
    for name, parts in squares.items():
        torch.testing.assert_close(fisher[name], torch.stack(parts).mean(0), atol=1e-10, rtol=1e-4)


def test_fisher_agrees_with_vectorized_gradients() -> None:
    model, images = _normed(sparse=False).eval(), part(6)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights: Any, image: Any, label: Any) -> Any:
        return F.cross_entropy(torch.func.functional_call(model, weights, (image[None],)), label[None])

    slopes = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, images.images, images.labels)
    fisher = compute_fisher_diagonal(model, images.images, images.labels)
    for name, slope in slopes.items():
        torch.testing.assert_close(fisher[name], slope.square().mean(0), atol=1e-10, rtol=1e-4)


def test_consolidation_is_a_parabola_around_the_anchor() -> None:
    model = nn.Linear(2, 1, bias=False).double()
    fisher = {"weight": torch.tensor([[2.0, 4.0]], dtype=torch.float64)}
    anchor = {"weight": torch.tensor([[1.0, 1.0]], dtype=torch.float64)}
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[4.0, 0.0]]))
    value = compute_consolidation(model, fisher, anchor)
    assert value.item() == pytest.approx((2 * 9 + 4 * 1) / 2)
    (slope,) = torch.autograd.grad(value, model.weight)
    torch.testing.assert_close(slope, torch.tensor([[6.0, -4.0]], dtype=torch.float64))


@given(st.integers(1, 200), st.floats(0, 0.999))
def test_both_phases_have_an_epoch_where_there_are_two(epochs: int, share: float) -> None:
    learn, mislead = Gong(learn=share).phases(epochs)
    assert learn.epochs + mislead.epochs == epochs
    assert mislead.epochs >= 1
    assert learn.epochs >= (epochs > 1)


def test_planted_images_are_labelled_another_class_than_they_show() -> None:
    state = prepared(Gong(**OPTIONS))
    assert state["planted"].shape == (30, 1, 8, 8)
    assert state["planted_labels"].bincount().tolist() == [10, 10, 10]
    assert state["planted_features"].bincount().tolist() == [10, 10, 10]
    assert not (state["planted_labels"] == state["planted_features"]).any()
    same = prepared(Gong(**OPTIONS))
    assert all(torch.equal(value, same[name]) for name, value in state.items())


def test_one_class_alone_is_refused() -> None:
    few = part(4)
    alone = ImageSet(pixels=few.pixels, labels=torch.zeros(4, dtype=torch.int64), classes=few.classes)
    budget = Budget(images=4, batch_size=4, epochs=1)
    with pytest.raises(RecipeError, match="only one"):
        Gong(**OPTIONS).prepare(Context(private=few, auxiliary=alone, blueprint=BLUEPRINT, seed=0, budget=budget))


@both
def test_batches_are_left_alone_until_misleading_begins(kind: type[Misleading]) -> None:
    defense, model = kind(**OPTIONS), built()
    state = dict(prepared(defense))
    images = part(7)
    before = defense.transform(images.images, images.labels, state=state, epoch=0, generator=random())
    assert before[1] is images.labels
    assert defense.on_epoch_start(moment(model, state, phase="learn")) == {}
    assert defense.on_epoch_start(moment(model, state, starts_phase=False)) == {}
    state |= defense.on_epoch_start(moment(model, state))
    assert state["inverted"].shape == (12, 1, 8, 8)
    assert state["inverted_labels"].bincount().tolist() == [4, 4, 4]
    more, labels = defense.transform(images.images, images.labels, state=state, epoch=1, generator=random())
    assert len(more) == len(labels) == 7 + 4 + 4
    assert torch.equal(more[:7], images.images)
    pools = {"planted": more[7:11], "inverted": more[11:]}
    for name, added in pools.items():
        for image, label in zip(added, labels[7:11] if name == "planted" else labels[11:], strict=True):
            among = state[name][state[f"{name}_labels"] == label].float() / 255
            assert (among == image).flatten(1).all(1).any()


def test_the_penalty_weighs_both_kinds_and_has_a_gradient() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 3, requires_grad=True), torch.arange(8) % 3
    defense = Gong(weight_planted=0.7, weight_inverted=0.2)
    value = defense.penalty(step(torch.rand(8, 1, 8, 8), labels, logits, 4))
    p = logits.softmax(1)[torch.arange(8), labels]
    torch.testing.assert_close(value, -0.7 * p[4:6].log().mean() - 0.2 * (1 - p[6:]).log().mean())
    (slope,) = torch.autograd.grad(value, logits)
    assert torch.equal(slope[:4], torch.zeros(4, 3))
    assert (slope[4:].abs().amax(1) > 0).all()
    assert defense.penalty(step(torch.rand(4, 1, 8, 8), labels[:4], logits[:4], 4)) is None
    assert defense.penalty(step(torch.rand(1, 1, 8, 8), labels[:1], logits[:1], 1)) is None


@both
@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_it_trains(kind: type[Misleading], epochs: int) -> None:
    defense = kind(**OPTIONS)
    model = fitted(defense, epochs)
    told = defense.facts(model, part().images, prepared(defense))
    assert all(0 <= value <= 1 for value in told.values())


def test_a_planted_class_is_learned() -> None:
    def told(weight: float) -> float:
        defense = Gong(**OPTIONS, weight_planted=weight, weight_inverted=0.0, learn=0.2)
        model = fitted(defense, epochs=20, lr=0.01)
        return dict(defense.facts(model, part().images, prepared(defense)))["planted_as_labelled"]

    assert told(10.0) > max(0.6, told(0.0) + 0.1)


def test_consolidation_holds_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    anchors: list[dict[str, Any]] = []
    look = GongContinual.on_epoch_start

    def seen(self: GongContinual, at: EpochContext) -> Any:
        found = look(self, at)
        if found:
            anchors.append(dict(found))
        return found

    monkeypatch.setattr(GongContinual, "on_epoch_start", seen)
    moved = []
    for hold in (0.0, 1e6):
        model = fitted(GongContinual(**OPTIONS, hold=hold), epochs=6, lr=0.01)
        learned = anchors.pop()
        fisher, anchor = (
            {name.removeprefix(kind): value for name, value in learned.items() if name.startswith(kind)}
            for kind in ("fisher/", "anchor/")
        )
        assert set(fisher) == dict(model.named_parameters()).keys()
        moved.append(compute_consolidation(model, fisher, anchor).item())
    assert moved[1] < 0.1 * moved[0]


def test_the_consolidated_penalty_is_the_sum() -> None:
    model, defense = built(), GongContinual(**OPTIONS, hold=8.0)
    state = dict(prepared(defense))
    state |= defense.on_epoch_start(moment(model, state))
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1
    logits, labels = torch.randn(8, 3), torch.arange(8) % 3
    plain = step(torch.rand(8, 1, 8, 8), labels, logits, 4)
    value = defense.penalty(replace(plain, phase="mislead", state=state, model=model))
    fisher = sum(value.sum() for name, value in state.items() if name.startswith("fisher/"))
    torch.testing.assert_close(value, Gong(**OPTIONS).penalty(plain) + 8 / 2 * 0.01 * fisher)


def test_what_it_takes_from_private_images() -> None:
    assert "number depends" in str(Gong().find_unaccounted_access())
    assert "Fisher" in GongContinual().find_unaccounted_access()
