"""The noise's distribution, where it acts, and what NoPeek adds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import scipy.stats
import torch
from torch import nn

from oracles.dcor_process import distance_correlations
from sparseguard.core.staged_model import Blueprint, StagedModel
from sparseguard.defenses.controls.none import NoDefense
from sparseguard.defenses.perturbation.gaussian_noise import GaussianNoise
from sparseguard.defenses.perturbation.laplace_noise import LaplaceNoise
from sparseguard.targets import BACKBONES
from sparseguard.types import BatchContext

IMAGES = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TAPS = {"first_linear": "first", "first_linear.relu": "first_relu", "last_hidden": "last"}


def plain(tap: str = "first_linear") -> Blueprint:
    return replace(BACKBONES["linear"](width=40).blueprint(3), tap=tap)


def built(defense: Any, tap: str = "first_linear") -> StagedModel:
    model = defense.edit_blueprint(plain(tap), {}).build(IMAGES.shape[1:], lambda _: 0)
    defense.release(model)
    return model.eval()


def step(model: StagedModel, **options: Any) -> BatchContext:
    outputs = model.outputs(IMAGES[:10])
    labels = torch.arange(10) % 3
    return (
        BatchContext(
            images=IMAGES[:10], labels=labels, outputs=outputs, logits=outputs["head"], state={}, epoch=0, phase="train"
        )
        if not options
        else replace(step(model), **options)
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0])
@torch.no_grad()
def test_laplace_noise_has_the_distribution_promised(scale: float, tap: str, training: bool) -> None:
    model = built(LaplaceNoise(scale=scale), tap).train(training)
    torch.manual_seed(1)
    seen = [model.forward_to(IMAGES, "noised") - model.forward_to(IMAGES, "bounded") for _ in range(2)]
    for noise in seen:
        assert scipy.stats.kstest(noise.flatten().double().numpy(), "laplace", args=(0, scale)).pvalue > 0.001
    assert scipy.stats.pearsonr(seen[0].flatten(), seen[1].flatten()).pvalue > 0.001  # a new draw at every query
    assert scipy.stats.pearsonr(seen[0][:, 0], seen[0][:, 1]).pvalue > 0.001
    assert scipy.stats.kstest(seen[0].flatten().double().numpy(), "norm", args=(0, scale * 2**0.5)).pvalue < 0.001


@pytest.mark.parametrize("sigma", [0.1, 0.5])
@torch.no_grad()
def test_gaussian_noise_has_the_distribution_promised(sigma: float) -> None:
    model, clean = built(GaussianNoise(sigma=sigma)), built(NoDefense())
    torch.manual_seed(1)
    seen = [model.forward_to(IMAGES, "first") - clean.forward_to(IMAGES, "first") for _ in range(2)]
    for noise in seen:
        assert scipy.stats.kstest(noise.flatten().double().numpy(), "norm", args=(0, sigma)).pvalue > 0.001
    assert scipy.stats.pearsonr(seen[0].flatten(), seen[1].flatten()).pvalue > 0.001
    assert scipy.stats.kstest(seen[0].flatten().double().numpy(), "laplace", args=(0, sigma / 2**0.5)).pvalue < 0.001


@pytest.mark.parametrize(("tap", "stage"), TAPS.items())
@torch.no_grad()
def test_the_noised_tensor_leaks_and_is_what_the_rest_is_fed(tap: str, stage: str) -> None:
    blueprint = LaplaceNoise().edit_blueprint(plain(tap), {})
    names = blueprint.stage_names()
    at = names.index(stage)
    assert names[at : at + 3] == [stage, "bounded", "noised"]
    assert [name for name in names if name not in ("bounded", "noised")] == plain(tap).stage_names()
    assert blueprint.resolve_tap(tap) == "noised"
    outputs = built(LaplaceNoise(), tap).outputs(IMAGES)
    torch.testing.assert_close(outputs["bounded"], outputs[stage].tanh())
    if tap == "first_linear":
        assert torch.equal(outputs["first_relu"], outputs["noised"].relu())


@pytest.mark.slow
def test_nopeek_adds_the_distance_correlation_of_own_images() -> None:
    batch = step(built(LaplaceNoise()))
    assert LaplaceNoise().penalty(batch) is None
    assert LaplaceNoise().find_unaccounted_access() is None
    assert LaplaceNoise(alpha=0.1).find_unaccounted_access()
    images, bounded = (rows.flatten(1).double().numpy() for rows in (IMAGES[:10], batch.outputs["bounded"].detach()))
    parts = (slice(None), slice(0, 6))
    for own, expected in zip(parts, distance_correlations([(images[own], bounded[own]) for own in parts]), strict=True):
        found = LaplaceNoise(alpha=0.3).penalty(replace(batch, own_count=own.stop))
        assert found is not None
        assert found.item() == pytest.approx(0.3 * expected, rel=1e-4)


def test_nopeek_training_lowers_the_correlation() -> None:
    defense = LaplaceNoise(alpha=1.0)
    model = built(defense)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = defense.penalty(step(model))
    for _ in range(30):
        penalty = defense.penalty(step(model))
        assert penalty is not None
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
    after = defense.penalty(step(model))
    assert before is not None
    assert after is not None
    assert after.item() < 0.7 * before.item()


def test_it_notices_that_the_bound_is_gone() -> None:
    model = built(LaplaceNoise())
    assert LaplaceNoise().find_inactivity(model, IMAGES) is None
    model.stages["bounded"] = nn.Hardtanh(-2, 2)
    assert (
        LaplaceNoise().find_inactivity(model, IMAGES * 50)
        == "the features before the noise are not bounded by 1, they reach 2"
    )
    assert LaplaceNoise().find_inactivity(built(GaussianNoise()), IMAGES) == "the model has no stage 'bounded'"


def test_a_scale_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        LaplaceNoise(scale=0)
