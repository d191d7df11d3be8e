"""BiDO: which stages count as hidden, what is added to the loss, what training does with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparseguard.core.staged_model import Blueprint, Stage, StagedModel
from sparseguard.defenses.controls.none import NoDefense
from sparseguard.defenses.perturbation.laplace_noise import LaplaceNoise
from sparseguard.defenses.perturbation.quantize import Quantize
from sparseguard.defenses.regularization.bido import BilateralDependency, find_hidden_stages
from sparseguard.defenses.sparse_coding.sca import SparseCodingArchitecture
from sparseguard.targets import BACKBONES
from sparseguard.types import BatchContext

IMAGES = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 3
MEASURES: tuple[Any, ...] = ("hsic-normalized", "hsic", "coco")
each_measure = pytest.mark.parametrize("measure", MEASURES)


def built(other: Any = None, backbone: str = "linear") -> StagedModel:
    blueprint = replace(BACKBONES[backbone](width=30).blueprint(3), tap="first_linear")
    return (other or NoDefense()).edit_blueprint(blueprint, {}).build(IMAGES.shape[1:], lambda _: 0)


def step(
    model: StagedModel, images: Tensor = IMAGES, labels: Tensor = LABELS, own_count: int | None = None
) -> BatchContext:
    outputs = model.outputs(images)
    logits = list(outputs.values())[-1]
    return BatchContext(
        images=images,
        labels=labels,
        outputs=outputs,
        logits=logits,
        state={},
        epoch=0,
        phase="train",
        own_count=own_count,
    )


@pytest.mark.parametrize(
    ("other", "backbone", "expected"),
    [
        (None, "linear", ["first_relu", "hidden_relu", "last_relu"]),
        (None, "linear-shallow", ["first_relu"]),
        (LaplaceNoise(), "linear-shallow", ["bounded", "noised", "first_relu"]),
        (Quantize(), "linear-shallow", ["quantized", "first_relu"]),
        (SparseCodingArchitecture(features=(4, 4), steps=(2, 2)), "linear-shallow", ["codes", "stem", "first_relu"]),
    ],
)
def test_hidden_stages(other: Any, backbone: str, expected: list[str]) -> None:
    assert find_hidden_stages(IMAGES, built(other, backbone).outputs(IMAGES)) == expected


def test_hidden_stages_of_another_architecture() -> None:
    builders: dict[str, nn.Module] = {
        "block1": nn.Conv2d(1, 2, 3),
        "dropout": nn.Dropout(),
        "flatten": nn.Flatten(),
        "in_place": nn.ReLU(inplace=True),
        "feature": nn.LazyLinear(5),
        "logits": nn.Linear(5, 3),
    }
    blueprint = Blueprint(
        stages=tuple(Stage(name, lambda _, m=module: m) for name, module in builders.items()), taps={}
    )
    model = blueprint.build((1, 8, 8), lambda _: 0)
    assert find_hidden_stages(IMAGES, model.eval().outputs(IMAGES)) == ["block1", "feature"]
    assert find_hidden_stages(IMAGES, model.train().outputs(IMAGES)) == ["block1", "dropout", "feature"]


def reference(
    measure: str, images: Tensor, hidden: list[Tensor], labels: Tensor, sigma: float, lx: float, ly: float
) -> float:
    """The penalty in double precision, by matrices as they stand in the paper and the authors' code."""
    m = len(images)
    h = np.eye(m) - 1 / m

    def gaussian(rows: Tensor) -> Any:
        flat = rows.detach().flatten(1).double().numpy()
        squares = ((flat[:, None] - flat[None]) ** 2).sum(2)
        return np.exp(-squares / (2 * sigma**2 * flat.shape[1]))

    def normalized(k: Any, ell: Any) -> float:
        rx, ry = ((a @ h) @ np.linalg.inv(a @ h + 1e-5 * m * np.eye(m)) for a in (k, ell))
        return float((rx * ry.T).sum())

    d = {
        "hsic-normalized": normalized,
        "hsic": lambda k, ell: np.trace(k @ h @ ell @ h) / (m - 1) ** 2,
        "coco": lambda k, ell: np.sqrt(np.linalg.norm(h @ k @ h @ ell @ h, 2)) / m,
    }[measure]
    x, y = gaussian(images), np.eye(3)[labels] @ np.eye(3)[labels].T
    return float(sum(lx * d(x, gaussian(z)) - ly * d(gaussian(z), y) for z in hidden))


@each_measure
@pytest.mark.parametrize("own_count", [None, 7])
@pytest.mark.parametrize(("lx", "ly", "sigma"), [(0.05, 0.5, 5.0), (2.0, 0.0, 0.5), (0.0, 3.0, 0.5)])
def test_the_penalty_is_the_formula_on_own_images(
    measure: Any, own_count: int | None, lx: float, ly: float, sigma: float
) -> None:
    seen = step(built(), own_count=own_count)
    found = BilateralDependency(measure=measure, lambda_x=lx, lambda_y=ly, sigma=sigma).penalty(seen)
    hidden = [seen.outputs[name][:own_count] for name in ("first_relu", "hidden_relu", "last_relu")]
    expected = reference(measure, IMAGES[:own_count], hidden, LABELS[:own_count], sigma, lx, ly)
    assert found is not None
    assert found.item() == pytest.approx(expected, rel=2e-3, abs=1e-6)


@each_measure
def test_training_trades_the_image_for_the_label(measure: Any) -> None:
    """Alone, each half of the penalty moves its own dependence its own way."""
    factor = {"hsic-normalized": 1.0, "hsic": 1e4, "coco": 1e2}[measure]
    for weights in ({"lambda_x": factor, "lambda_y": 0.0}, {"lambda_x": 0.0, "lambda_y": factor}):
        defense, model = BilateralDependency(measure=measure, **weights), built()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        values = []
        for _ in range(8):
            penalty = defense.penalty(step(model))
            assert penalty is not None
            optimizer.zero_grad()
            penalty.backward()
            optimizer.step()
            values.append(penalty.item())
        assert values[-1] < values[0] - 0.1 * abs(values[0])


@each_measure
def test_batches_that_tell_nothing_do_no_harm(measure: Any) -> None:
    defense, model = BilateralDependency(measure=measure), built()
    assert defense.penalty(step(model, own_count=1)) is None
    same = IMAGES[:1].expand(4, -1, -1, -1)
    for images, labels in ((IMAGES[:4], torch.zeros(4, dtype=torch.int64)), (same, LABELS[:4])):
        penalty = defense.penalty(step(model, images, labels))
        assert penalty is not None
        model.zero_grad()
        penalty.backward()
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


@each_measure
def test_outputs_that_are_not_finite_are_a_failure(measure: Any) -> None:
    model = built()
    with torch.no_grad():
        model.stages["first"][1].bias.fill_(float("nan"))
    if measure == "coco":
        with pytest.raises(ArithmeticError, match="'first_relu'"):
            BilateralDependency(measure=measure).penalty(step(model))
    else:
        penalty = BilateralDependency(measure=measure).penalty(step(model))
        assert penalty is not None
        assert penalty.isnan()


def test_it_couples_images_and_leaves_the_model_as_it_is() -> None:
    assert BilateralDependency().find_unaccounted_access()
    assert list(built(BilateralDependency()).stages) == list(built().stages)
