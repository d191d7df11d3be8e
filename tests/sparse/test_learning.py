"""Learning a dictionary from images: what it finds, and what it leaves alone."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.progress import Progress
from torch import Tensor

from sparseguard.data import DATASETS
from sparseguard.sparse import (
    ConvDictionary,
    Implicit,
    SparseCode2d,
    SparseCodeDense,
    SparseCoding,
    learn_dictionary,
    random_atoms,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed))


@pytest.fixture(scope="module")
def clothes() -> tuple[Tensor, Tensor]:
    """Real images to learn from, and others."""
    splits = DATASETS["fashion-mini"]().load()
    return splits.auxiliary.images[:240], splits.auxiliary_val.images[:40]


def energy(layer: SparseCoding, images: Tensor) -> float:
    return float(layer.solution(images).energy.mean())


def similarity(atoms: Tensor, others: Tensor) -> Tensor:
    """The largest inner product of each atom with any other, over all shifts; both of unit norm."""
    reach = max(atoms.shape[-1], others.shape[-1]) - 1
    return F.conv2d(F.pad(others, [reach] * 4), atoms).amax((0, 2, 3))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"stride": 2, "kernel_size": 7}, marks=pytest.mark.slow),
        {"padding": "valid", "stride": 2, "kernel_size": 6},
    ],
)
def test_energy_falls_on_real_images_and_on_others(clothes: tuple[Tensor, Tensor], settings: dict[str, Any]) -> None:
    images, others = clothes
    layer = SparseCode2d(1, 12, lambd=0.5, steps=30, generator=seeded(), **settings)
    before = energy(layer, others)
    history = learn_dictionary(layer, images, epochs=4, batch_size=20, generator=seeded())
    for earlier, later in itertools.pairwise(history):
        assert later.energy < earlier.energy
    assert energy(layer, others) < 0.65 * before


def test_energy_falls_for_vectors(clothes: tuple[Tensor, Tensor]) -> None:
    images, others = (part.flatten(1) for part in clothes)
    layer = SparseCodeDense(784, 50, generator=seeded())
    before = energy(layer, others)
    history = learn_dictionary(layer, images, batch_size=20, generator=seeded())
    assert history[-1].energy < 0.65 * history[0].energy
    assert energy(layer, others) < 0.4 * before


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_rate_fits_images_of_any_scale(clothes: tuple[Tensor, Tensor], scale: float) -> None:
    images = clothes[0][:50]
    layer = SparseCode2d(1, 8, standardize=False, lambd=0.1 * scale, generator=seeded())
    history = learn_dictionary(layer, images * scale, epochs=2, batch_size=10, generator=seeded())
    one = SparseCode2d(1, 8, standardize=False, lambd=0.1, generator=seeded())
    expected = learn_dictionary(one, images, epochs=2, batch_size=10, generator=seeded())
    assert history[-1].energy / scale**2 == pytest.approx(expected[-1].energy, rel=0.01)


@pytest.mark.parametrize("channels", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_planted_atoms_are_found(channels: int) -> None:
    planted = random_atoms(6, channels, (5, 5), seeded(channels))
    places = draws(100, 6, 20, 20) < 0.003
    images = ConvDictionary(planted, 1, "same", (20, 20)).synthesis(places * (0.5 + draws(100, 6, 20, 20, seed=2)))
    # room for the atoms at a shift, and some more atoms: with neither, learning stops at atoms that are cut off
    layer = SparseCode2d(channels, 10, 7, lambd=0.1, standardize=False, steps=30, generator=seeded(100))
    assert similarity(planted, layer.dictionary.detach()).max() < 0.7
    learn_dictionary(layer, images, epochs=8, batch_size=10, rate=1.0, generator=seeded())
    assert (similarity(planted, layer.dictionary) > 0.9).sum() >= 5


def test_one_update_is_its_formula() -> None:
    layer = SparseCode2d(2, 4, 3, lambd=0.1, stride=2, generator=seeded()).double()
    images = draws(6, 2, 9, 8).double()
    found = layer.solution(images)
    code, residual = found.code, found.residual
    padded = F.pad(residual, (1, 1, 1, 1))
    raw = layer.dictionary.clone()
    mean_square = float((code**2).sum() / (code > 0).sum())
    for f in range(4):
        total = torch.zeros(2, 3, 3, dtype=torch.float64)
        for i, p, q in (code[:, f] > 0).nonzero().tolist():
            total += code[i, f, p, q] * padded[i, :, 2 * p : 2 * p + 3, 2 * q : 2 * q + 3]
        raw[f] += 0.3 / mean_square * total / ((code[:, f] > 0).sum() + 1)
    learn_dictionary(layer, images, epochs=1, batch_size=6, rate=0.3, generator=seeded())
    expected = raw / raw.square().sum((1, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(layer.dictionary.detach(), expected, rtol=1e-9, atol=1e-9)


def test_the_history_is_that_of_the_codes() -> None:
    layer = SparseCode2d(1, 4, 3, lambd=0.3, generator=seeded())
    images = draws(6, 1, 9, 9)
    found = layer.solution(images)
    (row,) = learn_dictionary(layer, images, epochs=1, batch_size=6)
    assert row.energy == pytest.approx(float(found.energy.mean()), rel=1e-4)
    assert row.active == pytest.approx(float((found.code > 0).float().mean()), rel=1e-4)
    assert row.residual == pytest.approx(float(found.residual.norm() / found.problem.images.norm()), rel=1e-4)
    assert row.dead == int((found.code.amax((0, 2, 3)) == 0).sum())


def test_atoms_keep_unit_norm() -> None:
    layer = SparseCode2d(3, 6, 3, generator=seeded())
    learn_dictionary(layer, draws(20, 3, 9, 9), epochs=2, batch_size=5, rate=5.0, generator=seeded())
    torch.testing.assert_close(layer.dictionary.detach().flatten(1).norm(dim=1), torch.ones(6))


@pytest.mark.parametrize("dense", [False, True])
def test_dead_atoms_are_redrawn_if_asked(dense: bool) -> None:
    layer: SparseCoding = SparseCode2d(2, 6, 3, standardize=False, lambd=0.1, generator=seeded())
    images = draws(20, 2, 9, 9)
    if dense:
        layer, images = SparseCodeDense(162, 6, standardize=False, lambd=0.1, generator=seeded()), images.flatten(1)
    half = layer.dictionary.shape[1] // 2
    images[:, images.shape[1] // 2 :] = 0
    with torch.no_grad():
        layer.dictionary[:3, :half] = 0  # where the images are not
        layer.dictionary[3:, half:] = 0
    layer(images)
    start = {name: value.clone() for name, value in layer.state_dict().items()}
    kept = learn_dictionary(layer, images, epochs=4, batch_size=5, redraw=False, generator=seeded())
    assert [row.dead for row in kept] == [3, 3, 3, 3]
    torch.testing.assert_close(layer.dictionary[:3].detach(), start["dictionary"][:3])
    layer.load_state_dict(start)
    drawn = learn_dictionary(layer, images, epochs=4, batch_size=5, generator=seeded())
    assert drawn[0].dead == 3
    assert drawn[-1].dead == 0
    assert drawn[-1].energy < kept[-1].energy


@pytest.mark.slow
def test_redrawing_helps_where_atoms_die_on_real_images(clothes: tuple[Tensor, Tensor]) -> None:
    def learned(redraw: bool) -> tuple[int, float]:
        layer = SparseCode2d(1, 32, 11, stride=4, lambd=5.0, steps=10, generator=seeded())
        learn_dictionary(layer, clothes[0], epochs=3, batch_size=20, redraw=redraw, generator=seeded())
        code = layer.solution(clothes[1])
        return int((code.code.amax((0, 2, 3)) == 0).sum()), float(code.energy.mean())

    (dead, without), (alive, with_them) = learned(False), learned(True)
    assert dead > 20
    assert alive < 3
    assert with_them < 0.97 * without


def test_images_that_leave_nothing_to_draw_from_do_no_harm() -> None:
    layer = SparseCode2d(1, 4, 3, generator=seeded())
    atoms = layer.dictionary.clone()
    history = learn_dictionary(layer, torch.ones(4, 1, 8, 8), epochs=2, batch_size=4)
    assert [(row.energy, row.active, row.residual, row.dead) for row in history] == [(0, 0, 0, 4)] * 2
    torch.testing.assert_close(layer.dictionary, atoms)


def test_the_same_generator_gives_the_same_dictionary() -> None:
    def learned(seed: int) -> Tensor:
        layer = SparseCode2d(1, 4, 3, generator=seeded())
        learn_dictionary(layer, draws(12, 1, 8, 8), epochs=2, batch_size=5, generator=seeded(seed))
        return layer.dictionary.detach()

    torch.randperm(3)  # the global generator has no say
    first = learned(5)
    torch.randperm(3)
    assert torch.equal(first, learned(5))
    assert not torch.equal(first, learned(6))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("hebbian", [True, False])
def test_nothing_but_the_dictionary_changes(training: bool, hebbian: bool) -> None:
    layer = SparseCode2d(1, 4, 3, hebbian=hebbian, backprop=True, gradient=Implicit(), generator=seeded())
    layer.train(training)
    images = draws(8, 1, 8, 8)
    with torch.no_grad():
        layer(images)
    settings, waiting, atoms = repr(layer), layer.statistics, layer.dictionary
    before = atoms.detach().clone()
    learn_dictionary(layer, images, epochs=1, batch_size=4)
    assert (repr(layer), layer.training, layer.statistics, layer.dictionary) == (settings, training, waiting, atoms)
    assert atoms.requires_grad
    assert atoms.grad is None
    assert not torch.allclose(atoms, before)


def test_the_learned_layer_codes_as_a_new_one_with_its_atoms() -> None:
    layer, fresh = SparseCode2d(1, 4, 3, generator=seeded()), SparseCode2d(1, 4, 3)
    images = draws(8, 1, 8, 8)
    learn_dictionary(layer, images, epochs=2, batch_size=4, generator=seeded())
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(layer(images), fresh(images))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_call_leaves_the_last_complete_update(stop: type[BaseException]) -> None:
    images, after = draws(12, 1, 8, 8), list[Tensor]()

    def interrupting(numbers: Sequence[int]) -> Iterator[int]:
        for number in numbers:
            after.append(layer.dictionary.detach().clone())
            if number == 5:
                raise stop
            yield number

    def following(numbers: Sequence[int]) -> Iterator[int]:
        for number in numbers:
            complete.append(other.dictionary.detach().clone())
            yield number

    layer, other, complete = SparseCode2d(1, 4, 3, generator=seeded()), SparseCode2d(1, 4, 3), list[Tensor]()
    other.load_state_dict(layer.state_dict())
    layer.train()
    with pytest.raises(stop):
        learn_dictionary(layer, images, epochs=4, batch_size=4, generator=seeded(3), track=interrupting)
    assert layer.training
    learn_dictionary(other, images, epochs=4, batch_size=4, generator=seeded(3), track=following)
    assert torch.equal(layer.dictionary, complete[5])
    assert not torch.equal(complete[4], complete[5])
    assert torch.isfinite(layer(images)).all()


def test_progress_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    layer = SparseCode2d(1, 4, 3)
    with Progress(disable=True) as progress:
        history = learn_dictionary(layer, draws(10, 1, 8, 8), epochs=3, batch_size=4, track=progress.track)
        assert progress.tasks[0].total == 9
    assert len(history) == 3
    learn_dictionary(layer, draws(10, 1, 8, 8), epochs=1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("images", "settings", "message"),
    [
        (torch.zeros(0, 1, 8, 8), {}, "empty"),
        (torch.zeros(3, 2, 8, 8), {}, r"expected images \(n, 1, h, w\)"),
        (torch.zeros(3, 64), {}, "expected images"),
        (torch.full((3, 1, 8, 8), float("nan")), {}, "3 of 3"),
        (torch.ones(3, 1, 8, 8) / torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1, 1), {}, "1 of 3"),
        (torch.ones(3, 1, 8, 8), {"epochs": 0}, "epochs"),
        (torch.ones(3, 1, 8, 8), {"batch_size": 0}, "batch_size"),
        (torch.ones(3, 1, 8, 8), {"rate": 0.0}, "rate"),
        (torch.ones(3, 1, 8, 8), {"rate": float("nan")}, "rate"),
        (torch.ones(3, 1, 8, 8), {"rate": float("inf")}, "rate"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(images: Tensor, settings: dict[str, Any], message: str) -> None:
    layer = SparseCode2d(1, 4, 3)
    before = layer.dictionary.clone()
    with pytest.raises(ValueError, match=message):
        learn_dictionary(layer, images, **settings)
    assert torch.equal(layer.dictionary, before)
