from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseguard.bounds import (
    BOUNDS,
    Bound,
    LayerReconstruction,
    LayerwiseReconstruction,
    NoiseFacts,
    compute_bounds,
    list_layers,
)
from sparseguard.bounds._layers import iterate_activations
from sparseguard.bounds._noise_model import compute_clean_features
from sparseguard.bounds.base import mean_psnr
from sparseguard.bounds.layerwise import LayerwiseSearch
from sparseguard.core.errors import RecipeError
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import Noise, StagedModel
from sparseguard.numerics.ridge import fit_ridge_leave_one_out
from sparseguard.sparse import Lca, SparseCode2d
from sparseguard.types import ImageSet

CPU = torch.device("cpu")


class Gaussian(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values + 0.3 * torch.randn_like(values)


class Laplace(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values + torch.distributions.Laplace(0.0, 0.2).sample(values.shape)


def _smooth(n: int, seed: int) -> Tensor:
    """Smooth images that fill [0, 1]."""
    coarse = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    images = nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low)


def _set(n: int, seed: int) -> ImageSet:
    return ImageSet(pixels=_smooth(n, seed), labels=torch.zeros(n, dtype=torch.int64), classes=("one",))


def _decode(features: Tensor, images: Tensor, wanted: Tensor) -> Tensor:
    result: Tensor = fit_ridge_leave_one_out(features, images.flatten(1))(wanted).float().view(-1, *images.shape[1:])
    return result


def _mean_image(features: Tensor, images: Tensor, wanted: Tensor) -> Tensor:
    return images.mean(0, keepdim=True).expand(len(wanted), -1, -1, -1)


class Scale(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images * 2 - 1


def _sca(lambd: float = 0.2, steps: int = 200, **settings: Any) -> StagedModel:
    torch.manual_seed(0)
    first = SparseCode2d(1, 8, 3, lambd=lambd, steps=steps, **settings)
    norm = nn.BatchNorm2d(8)
    norm.running_mean, norm.running_var = torch.full((8,), 0.1), torch.full((8,), 0.3)
    second = SparseCode2d(8, 10, 3, lambd=lambd, steps=50)
    model = StagedModel(
        {
            "input": Scale(),
            "codes": first,
            "stem": nn.Sequential(norm, nn.Sequential(second, nn.BatchNorm2d(10))),
            "first": nn.Sequential(nn.Flatten(), nn.Linear(640, 20)),
            "first_relu": nn.ReLU(),
            "head": nn.Sequential(nn.Flatten(), nn.Linear(20, 2)),
        }
    )
    return model.eval().requires_grad_(False)


def _plain(noise: nn.Module | None = None) -> StagedModel:
    torch.manual_seed(0)
    model = StagedModel(
        {
            "input": Scale(),
            "stem": nn.Identity(),
            "first": nn.Sequential(nn.Flatten(), nn.Linear(64, 20)),
            "first_relu": nn.ReLU(),
            "last": nn.Sequential(nn.Flatten(), nn.Linear(20, 10)),
        }
    )
    if noise is not None:
        model.append_to("first", noise)
    return model.eval().requires_grad_(False)


def _bounds(model: StagedModel, tap: str, decode: Any = _decode, noise: NoiseFacts | None = None) -> list[Bound]:
    return compute_bounds(
        model,
        tap_stage=tap,
        auxiliary=_set(200, 0),
        private=_set(40, 1),
        decode=decode,
        noise=noise,
        device=CPU,
        seed=0,
        progress=Silent(),
    )


def _values(bounds: list[Bound], name: str, where: str | None = None) -> Mapping[str, float]:
    (result,) = [bound for bound in bounds if bound.name == name and where in (None, bound.where)]
    assert result.applies, result.reason
    return result.values


def _reason(bounds: list[Bound], name: str) -> str:
    (result,) = [bound for bound in bounds if bound.name == name]
    assert result.reason is not None
    assert not result.values
    return result.reason


def test_layers_are_every_module_that_computes_and_compose_the_model() -> None:
    model, images = _sca(), _smooth(5, 0)
    layers = list_layers(model, "first_relu")
    names = ["input", "codes", "stem.0", "stem.1.0", "stem.1.1", "first", "first_relu"]
    assert [layer.name for layer in layers] == names
    activations = {
        here.layer.name: here for here in iterate_activations(layers, images, images[:2], device=CPU, seed=0)
    }
    outputs = model.outputs(images)
    for layer, stage in (("codes", "codes"), ("stem.1.1", "stem"), ("first_relu", "first_relu")):
        torch.testing.assert_close(activations[layer].auxiliary_out, outputs[stage])
        torch.testing.assert_close(activations[layer].private_out, outputs[stage][:2])
    with pytest.raises(RecipeError, match="no stage 'frist'"):
        list_layers(model, "frist")


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="evaluation mode"):
        _bounds(_plain().train(), "first")


def test_bounds_of_a_sparse_model() -> None:
    bounds = _bounds(_sca(), "first_relu")
    assert {bound.name for bound in bounds} == set(BOUNDS)
    assert all(bound.meaning == BOUNDS[bound.name].meaning for bound in bounds)
    first = _values(bounds, "optimality-inversion", "codes")
    assert first["exact_solved"] == 1
    assert first["exact_kkt"] <= 1e-3
    assert first["exact_hidden"] < first["exact_hidden_by_synthesis"]
    assert first["exact_inversion_psnr"] > first["exact_synthesis_psnr"] + 6
    assert first["exact_inversion_true_statistics_psnr"] >= first["exact_inversion_psnr"]
    assert first["released_hidden"] == pytest.approx(first["exact_hidden"], rel=0.3)  # 200 steps are almost enough
    second = _values(bounds, "optimality-inversion", "stem.1.0")
    assert not [name for name in second if name.endswith("psnr")]
    assert 0 < second["exact_hidden"] < second["exact_hidden_by_synthesis"] < 1
    levels = _values(bounds, "layer-wise reconstruction")
    assert levels["image_psnr"] == levels["input_psnr"] == 100
    assert levels["codes.standardized_psnr"] > 50
    assert levels["codes_psnr"] == levels["codes_by_inversion_psnr"] == levels["stem.0_psnr"]
    assert levels["codes_psnr"] > levels["codes_by_decode_psnr"]
    assert "no noise" in _reason(bounds, "noise-pool")
    assert _values(bounds, "null-space")["hidden"] < 1e-9


def test_lambda_zero_gives_the_image() -> None:
    values = _values(_bounds(_sca(0.0, 100), "codes"), "optimality-inversion")
    assert values["exact_inversion_true_statistics_psnr"] > 60
    assert values["exact_inversion_psnr"] > 40


def test_codes_after_few_steps_differ_from_exact_codes() -> None:
    values = _values(_bounds(_sca(0.2, 3), "codes"), "optimality-inversion")
    assert values["released_kkt"] > 10 * values["exact_kkt"]
    assert values["released_misfit"] > values["exact_misfit"]
    assert values["released_hidden"] <= values["released_hidden_by_synthesis"] * 1.01


def test_layers_of_the_l0_penalty_are_not_inverted() -> None:
    bounds = _bounds(_sca(0.2, 50, penalty="l0", method=Lca()), "codes")
    assert "l1" in _reason(bounds, "optimality-inversion")


def test_weak_attackers_show_as_rises() -> None:
    auxiliary, private = _smooth(200, 0), _smooth(40, 1)

    def only_behind_relu(features: Tensor, images: Tensor, wanted: Tensor) -> Tensor:
        return (_decode if float(features.min()) >= 0 else _mean_image)(features, images, wanted)

    torch.manual_seed(0)
    bent = StagedModel({"bent": nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(64, 64)), "relu": nn.ReLU()}).eval()
    search = LayerwiseSearch(auxiliary, private, only_behind_relu, CPU)
    for here in iterate_activations(list_layers(bent, "relu"), auxiliary, private, device=CPU, seed=0):
        search.add_layer(here)
    result = search.result()
    assert [level.layer for level in result.layers] == ["image", "bent.0", "bent.2", "relu"]
    assert list(result.rises) == ["relu"]
    levels = {level.layer: level.psnr for level in result.layers}
    floor = mean_psnr(auxiliary.mean(0, keepdim=True).expand(40, -1, -1, -1), private)
    assert levels["bent.2"] == pytest.approx(floor)
    assert result.corrected["bent.2"] == levels["relu"]
    corrected = list(result.corrected.values())
    assert corrected == sorted(corrected, reverse=True)


def test_rises_and_correction_by_hand() -> None:
    heights = {"image": 100.0, "a": 20.0, "b": 20.05, "c": 25.0, "d": 10.0}
    levels = tuple(
        LayerReconstruction(layer=wall, psnr=psnr, method="decode", methods={"decode": psnr})
        for wall, psnr in heights.items()
    )
    result = LayerwiseReconstruction(layers=levels)
    assert result.rises == {"c": pytest.approx(4.95)}
    assert result.corrected == {"image": 100.0, "a": 25.0, "b": 25.0, "c": 25.0, "d": 10.0}


def test_null_space_of_a_plain_model_is_that_of_its_first_linear_layer() -> None:
    model = _plain()
    bounds = _bounds(model, "last")
    (result,) = [bound for bound in bounds if bound.name == "null-space"]
    assert result.where == "first"
    assert result.values["rank"] == 20
    singular = torch.linalg.svdvals(model.stages["first"][1].weight)  # type: ignore[index]
    assert result.values["condition"] == pytest.approx(float(singular[0] / singular[-1]), rel=1e-3)
    assert result.values["null_estimated_psnr"] > result.values["null_from_mean_psnr"]
    levels = _values(bounds, "layer-wise reconstruction")
    assert levels["first_by_affine_psnr"] == result.values["null_estimated_psnr"]
    assert "no sparse layer" in _reason(bounds, "optimality-inversion")


def test_a_model_that_begins_nonlinearly_has_no_null_space() -> None:
    model = StagedModel({"bent": nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(64, 4))}).eval().requires_grad_(False)
    assert "not affine" in _reason(_bounds(model, "bent"), "null-space")


def test_noise_bound_holds_at_the_first_noised_stage_and_every_later_tap() -> None:
    for kind, module, scale in (("gaussian", Gaussian(), 0.3), ("laplace", Laplace(), 0.2)):
        model = _plain(module)
        facts = NoiseFacts(kind=kind, scale=scale, stage="first")  # type: ignore[arg-type]
        early, late = _bounds(model, "first", noise=facts), _bounds(model, "last", noise=facts)
        values = _values(early, "noise-pool")
        assert values == _values(late, "noise-pool")
        assert 0 < values["mse"] < 0.1
        assert values["mse_psnr"] > _values(early, "layer-wise reconstruction")["first.1_psnr"]
        assert _values(early, "noise-pool", "first")
        assert "no noise" in _reason(_bounds(model, "first"), "noise-pool")
        assert "behind the tap" in _reason(_bounds(model, "input", noise=facts), "noise-pool")
        unknown = NoiseFacts(kind="gaussian", scale=0.3, stage="second")
        assert "no stage 'second'" in _reason(_bounds(model, "first", noise=unknown), "noise-pool")


def test_noise_facts_are_checked() -> None:
    images = _smooth(60, 0)

    def clean(model: StagedModel, stage: str = "first", **facts: Any) -> Tensor | str:
        noise = NoiseFacts(**{"kind": "gaussian", "scale": 0.3, "stage": stage, **facts})
        return compute_clean_features(model, noise, images, device=CPU, seed=0)

    model = _plain(Gaussian())
    expected = _plain().forward_to(images, "first")
    torch.testing.assert_close(clean(model), expected)
    torch.testing.assert_close(clean(model, clean=lambda batch: _plain().forward_to(batch, "first")), expected)
    assert "were stated" in str(clean(model, scale=0.5))
    assert "were stated" in str(clean(model, kind="laplace"))
    assert "were stated" in str(clean(model, clean=lambda batch: _plain().forward_to(batch, "first") / 0.0))
    assert "another shape" in str(clean(_plain()))
    assert NoiseFacts.from_model(_plain()) is None
    model = _plain(Noise("laplace", 0.2))
    facts = NoiseFacts.from_model(model, queries=3)
    assert facts is not None
    assert (facts.kind, facts.scale, facts.stage, facts.queries) == ("laplace", 0.2, "first", 3)
    torch.testing.assert_close(compute_clean_features(model, facts, images, device=CPU, seed=0), expected)
    assert "does not end with a noise module" in str(clean(model, "first_relu"))
    assert "noise before the end" in str(clean(model, "last"))


def test_a_bound_has_values_or_a_reason() -> None:
    for wrong in ({"applies": True, "values": {}}, {"applies": False, "reason": None}, {"reason": "both"}):
        settings: dict[str, Any] = {
            "name": "x", "where": "y", "applies": True, "reason": None, "values": {"a": 1.0}, "n": 1, "meaning": "z"
        }  # fmt: skip
        with pytest.raises(ValueError, match="values or a reason"):
            Bound(**{**settings, **wrong})


def test_empty_images_are_refused() -> None:
    nothing = _set(1, 0).select(torch.arange(0))
    with pytest.raises(RecipeError, match="at least one"):
        compute_bounds(
            _plain(),
            tap_stage="first",
            auxiliary=nothing,
            private=_set(2, 0),
            decode=_decode,
            noise=None,
            device=CPU,
            seed=0,
            progress=Silent(),
        )
