import pytest
import torch
from torch import nn

from sparseguard.attacks._white_box import WhiteBoxModel, feature_loss_gradient, mean_cosine
from sparseguard.attacks.feature_inversion._searches.pixel_search import total_variation
from sparseguard.attacks.feature_inversion.optimization import GradientInversion
from sparseguard.attacks.feature_inversion.ridge import Ridge
from sparseguard.core.staged_model import Noise, StagedModel
from sparseguard.sparse import SparseCode2d, StraightThrough
from support.attacks import attacked, error, linear, smooth

PLAIN = {"tv": (0.0,), "prior_weight": (0.0,), "probe_steps": 5, "probe_images": 4}


def orthogonal(seed=0):
    return torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))).Q


def coded(lambd=0.05, steps=60, features=16):
    torch.manual_seed(0)
    layer = SparseCode2d(1, features, 3, lambd=lambd, steps=steps, standardize=False)
    return StagedModel({"codes": layer}).eval().requires_grad_(False)


def test_an_image_is_reconstructed_through_an_invertible_tap():
    result, truth = attacked(GradientInversion(steps=300, **PLAIN), linear(orthogonal()))
    assert error(result.reconstructions["private"], truth["private"]) < 1e-6
    assert float(result.residuals["private"].max()) < 1e-2


def spans(target, images):
    """Whether the active atoms of each image span all images."""
    dictionary = target.stages["codes"].operator(images)
    ranks = []
    for code in target(images):
        active = (code.flatten() > 0).nonzero().flatten()
        one_hot = torch.nn.functional.one_hot(active, code.numel()).float().view(-1, *code.shape)
        ranks.append(int(torch.linalg.matrix_rank(dictionary.synthesis(one_hot).flatten(1), atol=1e-3)))
    return torch.tensor(ranks) == 64


@pytest.mark.slow
def test_with_a_complete_active_span_the_image_is_reconstructed_through_a_sparse_layer():
    target, many = coded(lambd=0.02, features=32, steps=30), smooth(40, 3)
    images = many.select(spans(target, many.images).nonzero().squeeze(1)[:5])
    assert len(images) == 5
    result, truth = attacked(GradientInversion(steps=150, **PLAIN), target, stage="codes", private=images)
    assert error(result.reconstructions["private"], truth["private"]) < 1e-4  # 40 dB


@pytest.mark.slow
def test_more_steps_never_hurt():
    target, errors = coded(lambd=0.3, steps=10), []
    for steps in (1, 8, 40):
        result, _ = attacked(GradientInversion(steps=steps, **PLAIN), target, stage="codes")
        errors.append(float(result.residuals["private"].square().mean()))
    assert errors[0] > errors[1] > errors[2]


def test_it_never_loses_to_the_attack_it_starts_from():
    torch.manual_seed(0)
    target = linear(torch.randn(12, 64))
    ridge, truth = attacked(Ridge(copies=2), target)
    attack = GradientInversion(steps=20, tv=(0.0, 1.0), prior_weight=(0.1, 10.0), probe_images=6, probe_steps=5)
    result, _ = attacked(attack, target, earlier={"outputs": ridge.reconstructions})
    assert error(result.reconstructions["auxiliary_val"], truth["auxiliary_val"]) <= error(
        ridge.reconstructions["auxiliary_val"], truth["auxiliary_val"]
    )


def test_a_search_that_does_not_help_returns_the_start():
    target = linear(torch.zeros(3, 64))
    perfect = {part: images.images for part, images in (("private", smooth(10, 3)), ("auxiliary_val", smooth(20, 2)))}
    result, truth = attacked(GradientInversion(steps=3, **PLAIN), target, earlier={"outputs": perfect})
    assert torch.equal(result.reconstructions["private"], truth["private"])
    assert result.diagnostics["searched"] == 0


def test_the_white_box_model_has_no_noise():
    target = linear(orthogonal())
    target.append_to("first", Noise("gaussian", 5.0))
    box, image = WhiteBoxModel(target.eval()), smooth(2, 1).images
    assert torch.equal(box(image), box(image))
    assert not torch.equal(target(image), target(image))  # the target itself keeps it


def test_total_variation_is_the_mean_squared_difference_of_neighbors():
    image = torch.tensor([[[[0.0, 1.0], [3.0, 3.0]]]])
    assert float(total_variation(image)) == pytest.approx((9 + 4) / 2 + (1 + 0) / 2)


def test_the_straight_through_gradient_is_the_analysis_transposed():
    layer = SparseCode2d(1, 3, 3, lambd=0.4, steps=10, standardize=False, gradient=StraightThrough()).double()
    image = torch.rand(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    code = layer(image)
    assert torch.equal(code, SparseCode2d.forward(layer, image.detach()))
    upstream = torch.randn_like(code)
    (result,) = torch.autograd.grad(code, image, upstream)
    torch.testing.assert_close(result, layer.operator(image).synthesis(upstream))


def test_rules_agree_where_the_code_is_solved():
    boxes = {rule: WhiteBoxModel(coded(lambd=0.4, steps=200, features=3), rule) for rule in ("unrolled", "implicit")}
    images, other = smooth(4, 5).images, smooth(4, 6).images
    with torch.no_grad():
        features = boxes["unrolled"](other)
    result = [feature_loss_gradient(box, images, features, 1.0) for box in boxes.values()]
    assert mean_cosine(*result) > 0.95


def test_lambda_can_be_scaled_and_restored():
    box, image = WhiteBoxModel(coded(lambd=0.3)), smooth(2, 1).images
    before = box(image)
    box.scale_lambda(0.1)
    assert (box(image) != 0).sum() > (before != 0).sum()
    box.scale_lambda(1.0)
    assert torch.equal(box(image), before)


def test_a_hidden_gradient_shows_in_the_notes():
    class Step(nn.Module):
        def forward(self, values):
            return (values > 0.5).float() + 0 * values

    target = StagedModel({"first": nn.Sequential(Step(), nn.Flatten())}).eval()
    result, _ = attacked(GradientInversion(steps=2, **PLAIN), target)
    assert result.diagnostics["gradient_norm"] == 0
