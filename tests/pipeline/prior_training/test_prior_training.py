"""Training a prior of a data set: which images it sees, how it is judged, what is left when it is stopped."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg

from sparseguard.core.errors import DataError, RecipeError, SparseguardError, StoreError
from sparseguard.core.progress import Silent
from sparseguard.generators import StyleFit, count_shared_images, load_prior
from sparseguard.generators.stylegan import training as style_gan
from sparseguard.metrics import FashionNet
from sparseguard.pipeline.prior_training import train as prior_training
from sparseguard.pipeline.prior_training.evaluate import build_evaluator
from sparseguard.pipeline.prior_training.train import (
    TrainedPrior,
    hash_auxiliary,
    locate_checkpoint,
    parse_dataset,
    parse_training,
    train_prior,
)
from sparseguard.types import ImageSet

CPU = torch.device("cpu")
MINI = ("data.private=40", "data.auxiliary=60", "data.auxiliary_val=20", "data.test=20")
FIT = StyleFit(images=16, batch_size=4, latent=3, width=2, most=2, depth=1, judge_every=8)


def trained(out: Path, **options: Any) -> TrainedPrior:
    given = {"name": "toy", "classes": ("Bag", "Dress"), "seed": 0, "device": CPU, "progress": Silent()}
    return train_prior(out, parse_dataset("fashion-mini", MINI), options.pop("fit", FIT), **{**given, **options})


def noise(count: int, *shape: int) -> ImageSet:
    pixels = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    return ImageSet(pixels=pixels, labels=torch.zeros(count, dtype=torch.int64), classes=("a",))


def frechet(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """By a matrix square root of the product, as Heusel et al. computed it."""
    (m1, m2), (c1, c2) = (x.mean(0) for x in (first, second)), (np.cov(x.T) for x in (first, second))
    return float(((m1 - m2) ** 2).sum() + np.trace(c1 + c2) - 2 * np.trace(linalg.sqrtm(c1 @ c2).real))


class Stopped:
    """Progress that is interrupted after two steps."""

    @contextmanager
    def task(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        calls = iter(range(3))

        def advance(steps: int) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt

        yield advance

    def say(self, message: str) -> None: ...


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainedPrior]:
    out = tmp_path_factory.mktemp("made") / "toy"
    return out, trained(out)


def test_it_has_seen_the_named_classes_of_auxiliary_and_nothing_else(made: tuple[Path, TrainedPrior]) -> None:
    prior = load_prior(made[0])
    assert prior.trained_on is not None
    parts = parse_dataset("fashion-mini", MINI).load().by_name()
    for name, images in parts.items():
        expected = 12 if name == "auxiliary" else 0  # 60 images of 10 classes, two of them
        assert count_shared_images(prior.trained_on, images) == expected
    assert len(prior.trained_on) == 12
    seen = parts["auxiliary"]
    wanted = torch.tensor([seen.classes.index(name) in (3, 8) for name in seen.classes])
    assert count_shared_images(prior.trained_on, seen.select(wanted[seen.labels].nonzero().squeeze(1))) == 12
    assert prior.card.classes == ("Dress", "Bag")
    assert "12 images of auxiliary of fashion-mini" in prior.card.trained_on


def test_what_is_written(made: tuple[Path, TrainedPrior]) -> None:
    out, result = made
    assert sorted(path.name for path in out.iterdir()) == ["prior.json", "samples.png", "weights.safetensors"]
    assert [path.name for path in out.parent.iterdir()] == ["toy"]  # no checkpoint is left
    assert Image.open(BytesIO((out / "samples.png").read_bytes())).size == (8 * 86 + 2, 8 * 86 + 2)
    card = load_prior(out).card
    assert card == result.card
    assert [verdict["images"] for verdict in result.history] == [8, 16]
    assert all(verdict["distance"] > 0 for verdict in result.history)
    assert result.evaluator is not None
    assert card.construction["distance"] == result.evaluator.name == "FD(pixels 2x2)"  # 6 images: 4 pixels and no more
    assert card.construction["between_halves"] == result.evaluator.between_halves
    assert any("FD(pixels 2x2) of 6 samples to 6 of these images" in line for line in card.source)


def test_the_judge_is_the_frechet_distance_at_equal_numbers() -> None:
    images = noise(300, 3, 20, 16)
    judge = build_evaluator(images, CPU)
    assert judge is not None
    assert judge.name == "FD(pixels 4x4)"  # 192 dimensions are too many for 150 images, 48 are not
    fakes = torch.rand(2048, 3, 20, 16, generator=torch.Generator().manual_seed(1)) ** 2

    def small(pixels: torch.Tensor) -> np.ndarray[Any, Any]:
        return pixels.double().view(-1, 3, 4, 5, 4, 4).mean((3, 5)).flatten(1).numpy()

    assert judge(fakes) == pytest.approx(frechet(judge.real.double().numpy(), small(fakes[:150])), rel=1e-3)
    rows = {row.tobytes() for row in small(images.images).astype(np.float32).round(4)}
    halves = [row.tobytes() for row in judge.real.numpy().round(4)]
    assert sum(row in rows for row in halves) > 140  # but for rounding, all
    assert 0 < judge.between_halves < judge(fakes)


def test_clothes_are_judged_by_fashion_net() -> None:
    images = parse_dataset("fashion-mini", ["data.auxiliary=200"]).load().auxiliary
    judge = build_evaluator(images, CPU)
    assert judge is not None
    assert judge.name == "FD(fashion-net)"
    real = FashionNet().features(images.images).double().numpy()
    ours = judge.real.double().numpy()
    nearest = np.abs(real[:, None] - ours[None]).max(2).argmin(0)
    others = np.setdiff1d(np.arange(200), nearest)
    assert len(others) == 100
    assert judge.between_halves == pytest.approx(frechet(ours, real[others]), rel=1e-2)


@pytest.mark.parametrize(("count", "name"), [(2, None), (3, None), (4, "FD(pixels 1x1)"), (400, "FD(pixels 8x8)")])
def test_few_images_are_judged_by_few_pixels(count: int, name: str | None) -> None:
    judge = build_evaluator(noise(count, 1, 9, 11), CPU)
    assert (None if judge is None else judge.name) == name


def test_a_training_goes_on_and_ends_as_if_it_was_not_stopped(
    made: tuple[Path, TrainedPrior], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style_gan, "SAVE_EVERY", 0.0)
    out = tmp_path / "toy"
    with pytest.raises(KeyboardInterrupt):
        trained(out, progress=Stopped())
    assert [path.name for path in tmp_path.iterdir()] == [locate_checkpoint(out).name]
    trained(out)
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    for name in ("weights.safetensors", "samples.png"):
        theirs, ours = ((home / name).read_bytes() for home in (made[0], out))
        assert hashlib.sha256(theirs).digest() == hashlib.sha256(ours).digest()
    assert any("the last part" in line for line in load_prior(out).card.source)


def test_another_trainings_checkpoint_is_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style_gan, "SAVE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "toy", progress=Stopped())
    with pytest.raises(StoreError, match="another training"):
        trained(tmp_path / "toy", classes=("Bag", "Coat"))
    assert [path.name for path in tmp_path.iterdir()] == ["toy.checkpoint.safetensors"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"classes": ("Bag", "Dres")}, RecipeError, "no class 'Dres'. Did you mean 'Dress'"),
        ({"classes": ()}, RecipeError, "no class is named"),
        ({"fit": dataclasses.replace(FIT, batch_size=13)}, RecipeError, "12 images of these classes"),
    ],
)
def test_refusals_leave_nothing(options: Any, error: type[SparseguardError], words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words):
        trained(tmp_path / "toy", **options)
    assert not list(tmp_path.iterdir())


def test_no_place_for_the_result_is_found_out_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_training, "train_style_gan", None)  # not reached
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreError, match="exists already"):
        trained(tmp_path / "there")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        trained(tmp_path / "file" / "toy")


def test_settings_by_name() -> None:
    assert parse_dataset("mnist", ["data.path=/some/where"]).path == Path("/some/where")  # type: ignore[attr-defined]
    assert parse_training(["width=24", "adaptive=false"], 500) == StyleFit(width=24, adaptive=False, images=500)
    assert len(hash_auxiliary(parse_dataset("fashion-mini", MINI))) == 60


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: parse_dataset("cifar", []), "unknown name 'cifar'"),
        (lambda: parse_dataset("mnist", ["path=x"]), r"--set path=x: expected a setting of the data set"),
        (lambda: parse_dataset("mnist", ["data.pth=x"]), "unknown key 'pth'. Did you mean 'path'"),
        (lambda: parse_training(["width"]), "--fit width: expected KEY=VALUE"),
        (lambda: parse_training(["widht=3"]), "unknown key 'widht'. Did you mean 'width'"),
        (lambda: parse_training(["width=0"]), "--fit: width"),
    ],
)
def test_settings_that_cannot_be_used(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        wrong()


def test_missing_files_are_a_matter_of_data(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        train_prior(
            tmp_path / "out" / "toy", parse_dataset("mnist", [f"data.path={tmp_path}"]), FIT, name="toy", classes=None,
            seed=0, device=CPU, progress=Silent(),
        )  # fmt: skip
