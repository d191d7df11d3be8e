"""Figures of sparse layers, against codes solved at other lambdas and reconstructions written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseguard.core.staged_model import StagedModel
from sparseguard.data import DATASETS
from sparseguard.defenses.sparse_coding._inspect import find_sparse_layers, measure_sparse_layers
from sparseguard.defenses.sparse_coding.sca import SparseCodingArchitecture
from sparseguard.defenses.sparse_coding.sparse_standard import SparseStandard
from sparseguard.sparse import SparseCode2d, standardize
from sparseguard.targets import BACKBONES

IMAGES = DATASETS["fashion-mini"](private=100).load().auxiliary_val.images[:6]
FACTS = ("lambda_over_max", "active", "active_share", "residual", "kkt")


def sca(**settings: object) -> StagedModel:
    defense = SparseCodingArchitecture(**{"features": (6, 8), "steps": (20, 8), **settings})
    blueprint = defense.edit_blueprint(BACKBONES["linear-shallow"](width=16).blueprint(10), {})
    return blueprint.build((1, 28, 28), lambda stage: len(stage))


def one_layer(images_code: SparseCode2d) -> StagedModel:
    return StagedModel({"codes": images_code, "head": nn.Flatten()})


def layer(lambd: float, steps: int = 20, like: SparseCode2d | None = None) -> SparseCode2d:
    made = SparseCode2d(1, 6, lambd=lambd, steps=steps, generator=torch.Generator().manual_seed(1))
    if like is not None:
        made.load_state_dict(like.state_dict())
    return made


@torch.no_grad()
def test_lambda_is_compared_with_the_least_at_which_the_code_is_zero() -> None:
    used = layer(0.5)
    for image in IMAGES[:3]:
        facts = measure_sparse_layers(one_layer(used), image[None])
        largest = 0.5 / facts["sparse_1_lambda_over_max"]
        assert int((layer(largest * 1.001, 50)(image[None]) != 0).sum()) == 0
        assert int((layer(largest * 0.999, 50)(image[None]) != 0).sum()) > 0
    each = [measure_sparse_layers(one_layer(used), image[None])["sparse_1_lambda_over_max"] for image in IMAGES]
    assert measure_sparse_layers(one_layer(used), IMAGES)["sparse_1_lambda_over_max"] == pytest.approx(
        sum(each) / 6, rel=1e-5
    )


@torch.no_grad()
def test_the_rest_is_what_it_says_for_every_layer_of_the_model() -> None:
    model = sca().eval()
    facts = measure_sparse_layers(model, IMAGES)
    assert set(facts) == {f"sparse_{number}_{name}" for number in (1, 2) for name in FACTS}
    given: list[Tensor] = [IMAGES * 2 - 1]
    first, second = find_sparse_layers(model)
    given.append(model.stages["stem"][0](first(given[0])))
    for number, (one, value) in enumerate(zip((first, second), given, strict=True), start=1):
        value, code = standardize(value), one(value)
        missing = value - F.conv_transpose2d(code, one.dictionary, padding=2)
        relative = [float(missing[i].norm() / value[i].norm()) for i in range(6)]
        counts = [int((code[i] > 0).sum()) for i in range(6)]
        slope = -F.conv2d(missing, one.dictionary, padding=2) + 0.5  # of the energy, where codes are not negative
        step = code - F.relu(code - slope)
        for name, expected in {
            "residual": sum(relative) / 6,
            "active": sum(counts) / 6,
            "active_share": sum(counts) / code.numel(),
            "kkt": float(step.abs().flatten(1).max(1).values.mean()),
        }.items():
            assert facts[f"sparse_{number}_{name}"] == pytest.approx(expected, rel=1e-4), name


@torch.no_grad()
def test_more_steps_come_nearer_to_a_solution() -> None:
    kkt = [measure_sparse_layers(one_layer(layer(0.5, steps)), IMAGES[:3])["sparse_1_kkt"] for steps in (10, 60, 360)]
    assert kkt[0] > 4 * kkt[1] > 16 * kkt[2]


@torch.no_grad()
def test_an_image_without_contrast_is_no_number_that_cannot_be_recorded() -> None:
    facts = measure_sparse_layers(one_layer(layer(0.5)), torch.full((2, 1, 9, 9), 0.3))
    assert facts == {
        "sparse_1_lambda_over_max": 1.0,
        "sparse_1_active": 0.0,
        "sparse_1_active_share": 0.0,
        "sparse_1_residual": 0.0,
        "sparse_1_kkt": 0.0,
    }


@torch.no_grad()
def test_both_sparse_defenses_report_them_and_leave_the_model_as_it_is() -> None:
    for defense, layers in ((SparseCodingArchitecture(), 2), (SparseStandard(), 1)):
        blueprint = defense.edit_blueprint(BACKBONES["linear-shallow"](width=16).blueprint(10), {})
        model = blueprint.build((1, 28, 28), lambda _: 0).eval()
        before = model(IMAGES)
        facts = defense.facts(model, IMAGES, {})
        assert len(facts) == layers * len(FACTS)
        assert all(isinstance(value, float) for value in facts.values())
        assert torch.equal(model(IMAGES), before)
        assert not any(layer._forward_hooks for layer in find_sparse_layers(model))
