"""Evaluators: what they learn from, that they are kept, and how right they are."""

import dataclasses

import pytest
import torch

from sparseguard.core.errors import TrainingError
from sparseguard.core.progress import Silent
from sparseguard.data import DATASETS
from sparseguard.metrics import class_consistency
from sparseguard.pipeline.scoring import evaluators as module
from sparseguard.pipeline.scoring.evaluators import NETWORKS, augment, load_evaluators
from sparseguard.types import ImageSet, Splits

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module, "BUDGET", {**module.BUDGET, "steps": 4, "every": 2, "batch": 16})


@pytest.fixture(scope="module")
def mini():
    return DATASETS["fashion-mini"](auxiliary=600, auxiliary_val=100, private=50, test=200).load()


def colours(side):
    """Images whose class is the channel that is brighter in the left half."""
    generator = torch.Generator().manual_seed(side)

    def part(n):
        labels = torch.arange(n) % 3
        images = 0.6 * torch.rand(n, 3, side, side, generator=generator)
        images[torch.arange(n), labels, :, : side // 2] += 0.4
        return ImageSet(pixels=images, labels=labels, classes=("red", "green", "blue"))

    return Splits(
        name="colours", private=part(6), auxiliary=part(60), auxiliary_val=part(30), tuning=part(6),
        test=part(60), layout="sparseguard", flips_keep_class=False,
    )  # fmt: skip


def test_two_evaluators_learn_and_say_how_accurate_they_are(mini, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUDGET", {**module.BUDGET, "steps": 60, "every": 20, "batch": 48})
    found = load_evaluators(mini, tmp_path, CPU, Silent())
    assert [evaluator.name for evaluator in found] == list(NETWORKS)
    assert len(found) >= 2
    for evaluator in found:
        with torch.no_grad():
            right = evaluator.module(mini.test.images).argmax(1) == mini.test.labels
        assert evaluator.accuracy == pytest.approx(right.double().mean().item())
        assert evaluator.accuracy > 0.5  # chance is 0.1
        assert not evaluator.module.training
        assert not any(parameter.requires_grad for parameter in evaluator.module.parameters())


def test_evaluators_are_trained_once(mini, tmp_path, monkeypatch):
    first = load_evaluators(mini, tmp_path, CPU, Silent())
    (folder,) = (tmp_path / "evaluators").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.safetensors" for name in NETWORKS)
    monkeypatch.setattr(module, "train_supervised", lambda *_: pytest.fail("trained again"))
    again = load_evaluators(mini, tmp_path, CPU, Silent())
    images = mini.test.images[:20]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.module(images), other.module(images))
        assert one.accuracy == other.accuracy


def test_evaluators_depend_on_the_attackers_images_alone(mini, tmp_path):
    first = load_evaluators(mini, tmp_path, CPU, Silent())
    torch.rand(7)  # the state of the global generator plays no part, and is left alone
    state = torch.get_rng_state()
    afresh = load_evaluators(mini, tmp_path / "elsewhere", CPU, Silent())
    assert torch.equal(state, torch.get_rng_state())
    images = mini.test.images[:20]
    assert all(torch.equal(a.module(images), b.module(images)) for a, b in zip(first, afresh, strict=True))

    load_evaluators(dataclasses.replace(mini, private=mini.tuning), tmp_path, CPU, Silent())
    assert len(list((tmp_path / "evaluators").iterdir())) == 1
    fewer = dataclasses.replace(mini, auxiliary=mini.auxiliary.select(torch.arange(300)))
    load_evaluators(fewer, tmp_path, CPU, Silent())
    assert len(list((tmp_path / "evaluators").iterdir())) == 2


@pytest.mark.parametrize("side", [32, 64])
def test_evaluators_learn_colours_of_other_sizes(side, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUDGET", {**module.BUDGET, "steps": 30, "every": 10, "batch": 24})
    for evaluator in load_evaluators(colours(side), tmp_path, CPU, Silent()):
        assert evaluator.accuracy > 0.9


def test_a_loss_that_is_not_finite_is_an_error(mini, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUDGET", {**module.BUDGET, "rate": 1e30})
    with pytest.raises(TrainingError, match="not finite"):
        load_evaluators(mini, tmp_path, CPU, Silent())


def test_augmentation_moves_and_mirrors():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 10, 8] = 1
    places = set()
    for seed in range(200):
        moved = augment(image, True, torch.Generator().manual_seed(seed))
        assert moved.shape == image.shape
        ((y, x),) = moved[0, 0].nonzero().tolist()
        places.add((y, x))
    assert {y for y, _ in places} == set(range(8, 13))
    assert {x for _, x in places} == {*range(6, 11), *range(17, 22)}  # 19 is 8, mirrored
    unmirrored = {
        augment(image, False, torch.Generator().manual_seed(s))[0, 0].nonzero()[0, 1].item() for s in range(99)
    }
    assert unmirrored == set(range(6, 11))


def test_recognized_is_one_where_the_class_is_right():
    class Brightest(torch.nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    images = torch.zeros(1100, 3, 2, 2)
    shown = torch.randint(3, (1100,), generator=torch.Generator().manual_seed(1))
    images[torch.arange(1100), shown] = 1
    labels = torch.randint(3, (1100,), generator=torch.Generator().manual_seed(2))
    scores = class_consistency(images, labels, Brightest())
    assert scores.dtype == torch.float32
    assert scores.tolist() == [float(a == b) for a, b in zip(shown.tolist(), labels.tolist(), strict=True)]
    assert class_consistency(images[:0], labels[:0], Brightest()).shape == (0,)
