"""Few levels, few values: counted, sorted, and differentiated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparseguard.core.errors import RecipeError
from sparseguard.core.staged_model import Blueprint, StagedModel
from sparseguard.defenses.perturbation.quantize import (
    FewBits,
    Quantize,
    mask_largest,
    round_to_levels,
)
from sparseguard.targets import BACKBONES

IMAGES = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
quick = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 10**6)


def placed(defense: Quantize, tap: str = "first_linear") -> Blueprint:
    return defense.edit_blueprint(replace(BACKBONES["linear"](width=30).blueprint(3), tap=tap), {})


def built(defense: Quantize, tap: str = "first_linear") -> StagedModel:
    return placed(defense, tap).build(IMAGES.shape[1:], lambda _: 0).eval()


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(bits=st.integers(1, 8), seed=seeds)
@quick
def test_values_are_the_nearest_of_the_levels(bits: int, seed: int) -> None:
    values = drawn(seed, 50).tanh()
    levels = np.linspace(-1, 1, 2**bits)
    nearest = levels[np.abs(values.numpy().astype(float)[:, None] - levels).argmin(1)]
    np.testing.assert_allclose(round_to_levels(values, bits), nearest, atol=1e-6)


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_level_is_reached_and_no_other(bits: int) -> None:
    found = FewBits(bits, None)(torch.linspace(-10, 10, 20001).view(1, -1)).unique()
    np.testing.assert_allclose(found, np.linspace(-1, 1, 2**bits), atol=1e-7)
    assert 0 not in found


@given(bits=st.integers(1, 8), seed=seeds)
@quick
def test_the_gradient_is_that_of_the_bound(bits: int, seed: int) -> None:
    values, weights = drawn(seed, 3, 7), drawn(seed + 1, 3, 7)
    slopes = []
    for function in (FewBits(bits, None), torch.tanh):
        leaf = values.clone().requires_grad_()
        slopes.append(torch.autograd.grad((function(leaf) * weights).sum(), leaf)[0])
    assert torch.equal(*slopes)


@given(bits=st.integers(0, 8), shape=st.sampled_from([(5,), (2, 3, 4)]), data=st.data(), seed=seeds)
@quick
def test_the_largest_are_kept_and_get_the_gradient(
    bits: int, shape: tuple[int, ...], data: st.DataObject, seed: int
) -> None:
    values = drawn(seed, 4, *shape)
    count = data.draw(st.integers(1, values[0].numel()))
    leaf = values.clone().requires_grad_()
    left = FewBits(bits, count)(leaf)
    (slope,) = torch.autograd.grad(left.sum(), leaf)
    for row, kept, gradient in zip(values.flatten(1), left.flatten(1), slope.flatten(1), strict=True):
        order = sorted(range(len(row)), key=lambda place, row=row: -abs(float(row[place])))  # type: ignore[misc]
        assert set(kept.nonzero().flatten().tolist()) == set(order[:count])
        expected = round_to_levels(row.tanh(), bits) if bits else row
        assert torch.equal(kept[order[:count]], expected[order[:count]])
        through = 1 - row.tanh() ** 2 if bits else torch.ones_like(row)
        through[order[count:]] = 0
        torch.testing.assert_close(gradient, through)


def test_ties_do_not_keep_more() -> None:
    assert mask_largest(torch.ones(3, 2, 5), 4).flatten(1).sum(1).tolist() == [4, 4, 4]
    saturated = FewBits(2, 3)(torch.tensor([[100.0, -101.0, 102.0, -103.0, 1.0]]))
    assert saturated.tolist() == [[0, -1, 1, -1, 0]]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("tap", ["first_linear", "first_linear.relu", "last_hidden"])
@torch.no_grad()
def test_what_leaks_is_quantized(tap: str, training: bool) -> None:
    defense = Quantize(bits=3, top_k=5)
    assert placed(defense, tap).resolve_tap(tap) == "quantized"
    leaked = built(defense, tap).train(training).forward_to(IMAGES, "quantized")
    assert (leaked != 0).sum(1).tolist() == [5] * 20
    steps = (leaked[leaked != 0] + 1) * 7 / 2
    torch.testing.assert_close(steps, steps.round(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("defense", [Quantize(), Quantize(bits=1, top_k=4), Quantize(bits=0, top_k=4)])
def test_it_notices_that_the_stage_is_gone(defense: Quantize) -> None:
    model = built(defense)
    assert defense.find_inactivity(model, IMAGES) is None
    for module in (nn.Identity(), FewBits(defense.bits and 8, 29)):
        model.stages["quantized"] = module
        assert defense.find_inactivity(model, IMAGES)
    del model.stages["quantized"]
    assert defense.find_inactivity(model, IMAGES) == "the model has no stage 'quantized'"


def test_settings_that_limit_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="bits = 0 needs top_k"):
        Quantize(bits=0)
    with pytest.raises(RecipeError, match="top_k 30 keeps all 30 values"):
        built(Quantize(top_k=30))
