import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from sparseguard.attacks import AttackContext
from sparseguard.attacks._descent import mean_squares
from sparseguard.attacks.access import ModelAccess
from sparseguard.attacks.base import NotApplicable
from sparseguard.attacks.feature_inversion._searches.latent_descent import Group, descend, next_features
from sparseguard.attacks.feature_inversion.gan_inversion import PriorInversion
from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import Noise, StagedModel
from sparseguard.generators import Prior, PriorCard, StylePrior
from sparseguard.generators.stylegan.networks import StyleGenerator
from sparseguard.sparse import SparseCode2d
from sparseguard.targets import state_hash
from sparseguard.types import AttackInput, AuxiliaryData, ImageSet, Knowledge
from support.attacks import CPU, error, linear

FAST = {"prior": "toy", "candidates": 32, "warm_steps": 3, "steps": 6, "layer_steps": 3, "probe_steps": 2,
        "probe_images": 3, "proximal_weight": (0.0, 0.1), "penalty": (0.001,)}  # fmt: skip


def prior_of(shape=(1, 8, 8), seed=0):
    torch.manual_seed(seed)
    generator = StyleGenerator(shape, latent=6, width=4, most=2, depth=2)
    with torch.no_grad():
        for block in generator.blocks:
            block.picture.weight *= 0.5  # samples stay within [0, 1] for the most part
    card = PriorCard(name="toy", kind="style", shape=shape, latent=(6,), num_ws=generator.num_ws, w_dim=6)
    return StylePrior(card, None, generator, None)


class OfLatents(Prior):
    """A generator of z only, without layers."""

    @classmethod
    def load(cls, folder, card, trained_on, tensors):
        raise NotImplementedError

    def mapping(self, z, *, truncation=1.0, cutoff=None):
        return z * truncation

    def synthesis(self, w):
        return torch.sigmoid(self.generator(w)).view(-1, 1, 8, 8)


def of_latents():
    torch.manual_seed(1)
    card = PriorCard(name="z", kind="module", shape=(1, 8, 8), latent=(5,), num_ws=0, w_dim=0)
    return OfLatents(card, None, nn.Linear(5, 64))


def made_by(prior, count, seed):
    z = prior.latents(count, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        pixels = prior.synthesis(prior.mapping(z)).clamp(0, 1)
    return ImageSet(pixels=pixels, labels=torch.zeros(count, dtype=torch.int64), classes=("only",))


def run(attack, target, prior, *, images=None, anchor="mean", seed=0):
    """Attack samples of ``images``, a prior; the anchor is the mean image, the truth, or there is none."""
    source = images or prior
    auxiliary = AuxiliaryData(train=made_by(source, 60, 101), val=made_by(source, 6, 102))
    access = ModelAccess(
        target, tap="t", stage="first", knowledge=Knowledge.WHITE_BOX, seed=0, device=CPU, released=target
    )
    parts = {"private": made_by(source, 5, 103), "auxiliary_val": auxiliary.val}
    inputs = {part: AttackInput(count=len(batch), observation=access.observe(batch)) for part, batch in parts.items()}
    mean = auxiliary.train.images.mean(0, keepdim=True)
    mean_images = {part: mean.repeat(len(batch), 1, 1, 1) for part, batch in parts.items()}
    true_images = {part: batch.images for part, batch in parts.items()}
    earlier = {"mean": {"nothing": mean_images}, "truth": {"outputs": true_images}}.get(anchor, {})
    context = AttackContext(
        auxiliary=auxiliary,
        seed=seed,
        device=CPU,
        progress=Silent(),
        label="toy",
        earlier=earlier,
        prior=prior,
    )
    result, _ = attack(access, inputs, context)
    return result, true_images, mean


def orthogonal(count=64):
    return torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).Q[:count]


def decibel(images, truth):
    return -10 * (images - truth).square().flatten(1).mean(1).log10()


def hooks(prior):
    return sum(len(module._forward_hooks) for module in prior.generator.modules())


def test_samples_of_the_prior_are_reconstructed_through_an_invertible_tap():
    attack = PriorInversion(**{**FAST, "candidates": 64, "steps": 120, "layer_steps": 20, "probe_steps": 4})
    result, truth, mean = run(attack, linear(orthogonal()), prior_of())
    reached = decibel(result.reconstructions["private"], truth["private"])
    assert float(reached.min()) > 30
    assert float((reached - decibel(mean, truth["private"])).min()) > 10
    assert result.diagnostics["share"] == 1


def test_the_prior_distinguishes_samples_that_no_linear_decoder_can():
    # 20 numbers of 64 pixels: the best linear answer leaves the rest of the variance, the prior has 6 numbers only
    prior, matrix = of_latents(), orthogonal(20)
    attack = PriorInversion(prior="z", candidates=128, steps=200, probe_steps=30, penalty=(0.0,))
    result, truth, _ = run(attack, linear(matrix), prior)
    train = made_by(prior, 5000, 7).images.flatten(1)
    features = torch.cat([train @ matrix.T, torch.ones(5000, 1)], 1)
    solved = torch.linalg.lstsq(features, train).solution
    private = truth["private"].flatten(1)
    linear_answer = torch.cat([private @ matrix.T, torch.ones(5, 1)], 1) @ solved
    assert error(result.reconstructions["private"].flatten(1), private) < error(linear_answer, private) / 10
    assert result.diagnostics["depth"] == 0  # it has no layers


def test_deeper_layers_reach_images_the_latents_cannot():
    attack = PriorInversion(**{**FAST, "steps": 25, "layer_steps": 30})
    result, truth, mean = run(attack, linear(torch.eye(64)), prior_of(), images=prior_of(seed=9))
    assert result.diagnostics["depth"] > 0
    assert error(result.reconstructions["private"], truth["private"]) < error(mean, truth["private"]) / 4


@given(seed=st.integers(0, 50), columns=st.integers(1, 64), foreign=st.booleans())
@hypothesis_settings(max_examples=3, deadline=None)
def test_it_never_loses_to_its_anchor_on_auxiliary_val(seed, columns, foreign):
    matrix = torch.randn(columns, 64, generator=torch.Generator().manual_seed(seed))
    images = prior_of(seed=9) if foreign else None
    result, truth, mean = run(PriorInversion(**FAST), linear(matrix), prior_of(), images=images, seed=seed)
    before = error(mean, truth["auxiliary_val"])
    assert error(result.reconstructions["auxiliary_val"], truth["auxiliary_val"]) <= before + 1e-7
    assert result.diagnostics["start_auxiliary_val_mse"] == pytest.approx(before)


def test_a_search_that_does_not_help_returns_the_anchor():
    result, truth, _ = run(PriorInversion(**FAST), linear(torch.eye(64)), prior_of(), anchor="truth")
    assert result.diagnostics["searched"] == 0
    assert torch.equal(result.reconstructions["private"], truth["private"])


def test_residuals_are_the_distances_in_feature_space():
    matrix = orthogonal(30)
    result, truth, _ = run(PriorInversion(**FAST), linear(matrix), prior_of())
    train = made_by(prior_of(), 60, 101).images.flatten(1) @ matrix.T
    away = (result.reconstructions["private"] - truth["private"]).flatten(1) @ matrix.T
    torch.testing.assert_close(result.residuals["private"], (away.square().sum(1) / train.var(0).sum()).sqrt())


@pytest.mark.parametrize("layer", [0, 1])
def test_gradients_in_w_and_features_agree_with_finite_differences(layer):
    prior = prior_of((1, 6, 6))
    prior.generator.double()
    w = prior.mapping(prior.latents(1, torch.Generator().manual_seed(0)).double()).clone()
    grid, picture = prior.features(w, layer)
    torch.testing.assert_close(prior.finish((grid, picture), w, layer), prior.synthesis(w), rtol=0, atol=0)
    places = [value.requires_grad_() for value in (grid.clone(), picture.clone(), w)]
    assert torch.autograd.gradcheck(lambda grid, picture, w: prior.finish((grid, picture), w, layer), places)


def test_the_next_layers_output_for_moved_features_gives_the_same_images():
    prior = prior_of()
    w = prior.mapping(prior.latents(2, torch.Generator().manual_seed(0)))
    grid, picture = prior.features(w, 0)
    moved = (grid + 0.3, picture - 0.1)
    torch.testing.assert_close(prior.finish(next_features(prior, moved, w, 0), w, 1), prior.finish(moved, w, 0))
    assert hooks(prior) == 0


def test_a_descent_solves_a_problem_of_known_solution_and_keeps_the_lowest():
    target = torch.tensor([[0.2, 0.7], [0.9, 0.4]])
    start, size = torch.full((2, 2), 0.5), torch.tensor([0.5, 2.0])

    def objective(images, values, moves):
        distance = mean_squares(images - target.view(2, 1, 1, 2))
        return distance + mean_squares(moves[0]), distance

    def search(lr, steps):
        groups = [Group(start=start, size=size, lr=lr)]
        return descend(groups, lambda values: values[0].view(2, 1, 1, 2), objective, steps)

    square = size.square().unsqueeze(1)
    expected = start + square / (1 + square) * (target - start)  # least (c + s m - g)^2 + m^2
    torch.testing.assert_close(search(0.05, 400).iterate[1], expected, rtol=0, atol=1e-3)
    images, _ = search(5.0, 3).iterate
    assert bool((mean_squares(images - target.view(2, 1, 1, 2)) <= mean_squares(start - target)).all())
    torch.testing.assert_close(search(0.05, 0).losses[0], mean_squares(start - target).mean())


def sparse():
    torch.manual_seed(0)
    layer = SparseCode2d(1, 4, 3, lambd=0.2, steps=4)
    return StagedModel({"codes": layer, "first": nn.Flatten()}).eval().requires_grad_(False)


def test_through_sparse_layers_a_rule_is_chosen_and_cosines_are_noted():
    result, _, _ = run(PriorInversion(**FAST), sparse(), prior_of())
    assert sum(name.startswith("rule: ") for name in result.diagnostics) == 1
    assert {"cosine unrolled, implicit", "cosine unrolled, straight-through", "gradient_norm"} <= set(
        result.diagnostics
    )


def test_the_seed_decides_and_the_size_of_batches_does_not():
    target = linear(orthogonal(40))
    results = []
    for stir, size in ((1, 32), (2, 32), (3, 2)):
        torch.manual_seed(stir)
        results.append(run(PriorInversion(**FAST, batch_size=size), target, prior_of())[0])
    first, again, smaller = (result.reconstructions["private"] for result in results)
    assert torch.equal(first, again)
    torch.testing.assert_close(first, smaller, rtol=0, atol=1e-3)
    assert results[0].diagnostics == pytest.approx(results[2].diagnostics, rel=1e-3)


def test_without_an_earlier_attack_the_search_is_the_answer():
    result, truth, mean = run(PriorInversion(**FAST), linear(torch.eye(64)), prior_of(), anchor=None)
    assert result.diagnostics["searched"] == result.diagnostics["share"] == 1
    assert result.diagnostics["anchor"] == result.diagnostics["warm"] == 0
    assert error(result.reconstructions["private"], truth["private"]) < error(mean, truth["private"])


def test_target_and_prior_are_unchanged():
    target, prior = linear(orthogonal(40)), prior_of()
    target.append_to("first", Noise("gaussian", 0.1))
    before, weights = state_hash(target.eval()), state_hash(prior.generator)
    run(PriorInversion(**FAST), target, prior)
    assert (state_hash(target), state_hash(prior.generator), hooks(prior)) == (before, weights, 0)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in prior.generator.parameters())


def test_no_hook_stays_after_a_failure():
    class Fails(nn.Module):
        left = 40

        def forward(self, images):
            self.left -= torch.is_grad_enabled()
            if self.left < 0:
                raise ArithmeticError("no more")
            return images.flatten(1)

    prior = prior_of()
    with pytest.raises(ArithmeticError, match="no more"):
        run(PriorInversion(**FAST), StagedModel({"first": Fails()}).eval(), prior)
    assert hooks(prior) == 0
    with pytest.raises((RuntimeError, ValueError)):  # the shape of what is replaced is wrong
        next_features(prior, (torch.zeros(1), None), torch.zeros(2, prior.card.num_ws, 6), 0)
    assert hooks(prior) == 0


@pytest.mark.parametrize(
    ("attack", "prior", "reason"),
    [
        (PriorInversion(), prior_of(), "no prior is named"),
        (PriorInversion(prior="toy"), None, "no prior is named"),
        (PriorInversion(prior="toy"), prior_of((3, 16, 16)), r"images of \(3, 16, 16\).*attacked are \(1, 8, 8\)"),
    ],
)
def test_it_does_not_apply_without_a_fitting_prior(attack, prior, reason):
    with pytest.raises(NotApplicable, match=reason):
        run(attack, linear(torch.eye(64)), prior, images=prior_of())
    assert attack.prior_source() == (attack.prior or None)


def test_it_needs_auxiliary_val():
    target, auxiliary = (
        linear(torch.eye(64)),
        AuxiliaryData(train=made_by(prior_of(), 9, 1), val=made_by(prior_of(), 4, 2)),
    )
    access = ModelAccess(
        target, tap="t", stage="first", knowledge=Knowledge.WHITE_BOX, seed=0, device=CPU, released=target
    )
    inputs = {"private": AttackInput(count=4, observation=access.observe(auxiliary.val))}
    context = AttackContext(auxiliary=auxiliary, seed=0, device=CPU, progress=Silent(), label="toy", prior=prior_of())
    with pytest.raises(NotApplicable, match="auxiliary_val"):
        PriorInversion(prior="toy")(access, inputs, context)
