from dataclasses import replace

import pydantic
import pytest
import torch
from torch import nn

from sparseguard.attacks import CLASS_ATTACKS
from sparseguard.attacks._image_transforms import draw_crop, fit_to_shape
from sparseguard.attacks.model_inversion.pixel_inversion import PixelInversion
from sparseguard.attacks.model_inversion.plug_and_play import PlugAndPlay
from sparseguard.core.errors import RecipeError
from sparseguard.core.seeding import derive
from sparseguard.core.staged_model import Noise
from sparseguard.generators import Prior, PriorCard
from sparseguard.sparse import SparseCode2d
from sparseguard.targets import state_hash
from sparseguard.types import TargetClasses
from support.class_attacks import GOAL, SHAPE, classifier, confidence, run
from support.priors import tiny_prior

SMALL = {"prior": "tiny", "candidates": 60, "optimized": 6, "selected": 3, "steps": 15, "transforms": 4, "lr": (0.05,)}


def small(**more):
    return PlugAndPlay(**{**SMALL, **more})


def test_candidates_are_the_ones_the_target_is_surest_of():
    target, prior = classifier(), tiny_prior()
    result = run(small(), target, prior=prior)
    z = torch.randn(60, 8, generator=torch.Generator().manual_seed(derive(purpose="candidates", seed=0)))
    images = prior.synthesis(prior.mapping(z, truncation=0.5)).clamp(0, 1)
    expected = confidence(target, images)
    for label in GOAL.indices:
        best = expected[:, label].sort(descending=True).values[:6]
        own = result.start_confidence[result.labels == label].sort(descending=True).values
        torch.testing.assert_close(own, best, atol=1e-5, rtol=0)


def test_the_search_raises_the_confidence_and_lowers_the_loss():
    target = classifier()
    for loss in ("poincare", "max-margin", "cross-entropy"):  # the Poincaré loss does not see how long logits are
        result = run(small(steps=40, loss=loss), target)
        curve = result.curves[f"{loss} loss"]
        assert curve[-1] < curve[0]
    assert (result.confidence > result.start_confidence).float().mean() > 0.9
    expected = confidence(target, result.images).gather(1, result.labels.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(result.confidence, expected, atol=1e-4, rtol=0)


def test_the_answer_keeps_its_confidence_under_random_crops():
    target = classifier()
    attack = small()
    result = run(attack, target)
    for label in GOAL.indices:
        own = result.labels == label
        total = torch.zeros(int(own.sum()))
        for number in range(attack.transforms):
            source = torch.Generator().manual_seed(derive(purpose="select", seed=0, number=number))
            crop = draw_crop(SHAPE[1:], attack.final_scale, attack.final_ratio, True, source)
            total += target(crop.apply(result.images[own])).softmax(1)[:, label]
        torch.testing.assert_close(result.steady_confidence[own], total / attack.transforms, atol=1e-4, rtol=0)
        assert result.steady_confidence[own].tolist() == sorted(result.steady_confidence[own].tolist(), reverse=True)
        assert result.selected[own].tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("more", [{}, {"space": "w+"}, {"loss": "cross-entropy"}, {"loss": "max-margin"}])
def test_equal_seeds_give_equal_images_whatever_the_batch(more):
    target = classifier()
    first = run(small(batch_size=64, **more), target)
    for batch_size in (64, 5):
        again = run(small(batch_size=batch_size, **more), target)
        # Adam makes much of a tiny gradient's rounding
        torch.testing.assert_close(again.images, first.images, atol=0.05, rtol=0)
    other = run(small(**more), target, seed=1)
    assert not torch.allclose(other.images, first.images, atol=0.1)


def test_w_plus_moves_layers_apart_and_reaches_lower():
    single, several = (run(small(space=space, steps=60), classifier()) for space in ("w", "w+"))
    assert several.curves["poincare loss"][-1] < single.curves["poincare loss"][-1]


class Memory:
    """Keeps what is saved, and stops the attack after so many classes."""

    def __init__(self, most=None):
        self.most, self.saved = most, {}

    def load(self, name):
        return self.saved.get(name)

    def save(self, name, tensors):
        if self.most is not None and sum(key.startswith("class-") for key in self.saved) >= self.most:
            raise KeyboardInterrupt
        self.saved[name] = {key: torch.as_tensor(value).clone() for key, value in tensors.items()}


def test_an_interrupted_attack_resumes_with_the_next_class_and_ends_the_same():
    target, memory = classifier(), Memory(most=1)
    whole = run(small(batch_size=6), target)
    with pytest.raises(KeyboardInterrupt):
        run(small(batch_size=6), target, partial_results=memory)
    assert [name for name in memory.saved if name.startswith("class-")] == ["class-0"]
    memory.most = None
    untouched = memory.saved["class-0"]["images"].clone()
    resumed = run(small(batch_size=6), target, partial_results=memory)
    torch.testing.assert_close(resumed.images, whole.images, atol=1e-4, rtol=0)
    assert (memory.saved["class-0"]["images"] == untouched).all()
    again = run(small(batch_size=6), target, partial_results=memory)
    assert again.diagnostics == pytest.approx(resumed.diagnostics)


class ZOnly(Prior):
    """A generator without W."""

    @classmethod
    def load(cls, folder, card, trained_on, tensors):
        raise NotImplementedError

    def mapping(self, z, *, truncation=1.0, cutoff=None):
        return z * truncation

    def synthesis(self, w):
        return self.generator(w).sigmoid()


def test_a_generator_of_z_only_is_searched_in_z():
    torch.manual_seed(0)
    card = PriorCard(name="z", kind="module", shape=SHAPE, latent=(5, 1, 1), num_ws=0, w_dim=0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(5, 144), nn.Unflatten(1, SHAPE))
    classes = replace(GOAL, flips_keep_class=False)
    result = run(small(loss="cross-entropy"), classifier(), prior=ZOnly(card, None, net), classes=classes)
    assert (result.confidence > result.start_confidence).float().mean() > 0.9
    with pytest.raises(RecipeError, match="needs a prior with a W"):
        run(small(space="w+"), classifier(), prior=ZOnly(card, None, net))


def test_the_rule_through_sparse_layers_is_the_one_that_lowers_the_loss_most():
    torch.manual_seed(0)
    layer = SparseCode2d(1, 4, 3, lambd=0.1, steps=8)
    target = classifier(layer, features=4 * 144)
    attack = small(probe_steps=4, lr=(0.01, 0.05))
    result = run(attack, target)
    assert sum(name.startswith("rule: ") for name in result.diagnostics) == 1
    assert result.diagnostics["lr"] in attack.lr
    assert result.diagnostics["gradient_norm"] > 0
    tried = {name: loss for name, loss in result.diagnostics.items() if name.startswith("probe loss")}
    assert len(tried) == 4  # two rates, then two more rules
    (rule,) = (name.removeprefix("rule: ") for name in result.diagnostics if name.startswith("rule: "))
    assert tried[f"probe loss, {rule}, lr {result.diagnostics['lr']:g}"] == min(tried.values())
    for rule in ("implicit", "straight-through"):
        assert -1 <= result.diagnostics[f"cosine unrolled, {rule}"] <= 1


def test_the_search_ignores_noise():
    quiet, noisy = classifier(), classifier(Noise("gaussian", 5.0))
    torch.testing.assert_close(run(small(), noisy).images, run(small(), quiet).images)


def test_neither_target_nor_prior_is_changed():
    target, prior = classifier(), tiny_prior(discriminator=True)
    before, weights = state_hash(target), {k: v.clone() for k, v in prior.generator.state_dict().items()}
    run(small(discriminator=0.1), target, prior=prior)
    assert state_hash(target) == before
    assert all((value == weights[name]).all() for name, value in prior.generator.state_dict().items())


def test_the_discriminator_keeps_images_realistic():
    prior = tiny_prior(discriminator=True)
    plain, kept = (run(small(discriminator=beta, steps=40), classifier(), prior=prior) for beta in (0.0, 50.0))
    assert prior.realism(kept.images).mean() > prior.realism(plain.images).mean()


@pytest.mark.parametrize(
    ("more", "options", "message"),
    [
        ({}, {"prior": None}, "needs a prior"),
        ({"discriminator": 0.5}, {}, "no discriminator"),
        ({"crop": 40}, {}, "larger than the prior's images"),
        ({"cutoff": 50}, {}, "layers that take a w"),
    ],
)
def test_settings_that_do_not_fit_the_prior_are_refused(more, options, message):
    with pytest.raises(RecipeError, match=message):
        run(small(**more), classifier(), **options)


@pytest.mark.parametrize(
    "bad",
    [{"optimized": 61}, {"selected": 7}, {"scale": (0.9, 0.5)}, {"lr": ()}, {"loss": "hinge"}, {"betas": (1.0, 0.1)}],
)
def test_settings_that_contradict_each_other_are_refused(bad):
    with pytest.raises(pydantic.ValidationError):
        small(**bad)


@pytest.mark.parametrize("name", PlugAndPlay.presets)
def test_presets_are_settings(name):
    preset = PlugAndPlay(prior="x", **PlugAndPlay.presets[name])
    assert (preset.optimized, preset.selected, preset.transforms) == (200, 50, 100)


def test_a_prior_of_another_size_is_cropped_turned_gray_and_resized():
    prior = tiny_prior((3, 20, 20))
    result = run(small(crop=16), classifier(), prior=prior)
    assert result.images.shape[1:] == SHAPE
    loose = small(crop=16).sample_prior(7, GOAL, prior, seed=0)
    assert loose.shape == (7, *SHAPE)
    z = torch.randn(7, 8, generator=torch.Generator().manual_seed(derive(purpose="unattacked", seed=0)))
    expected = fit_to_shape(prior.synthesis(prior.mapping(z, truncation=0.5)), SHAPE, 16).clamp(0, 1)
    torch.testing.assert_close(loose, expected)


@pytest.mark.parametrize("space", ["w", "w+"])
def test_samples_without_an_attack_are_truncated_like_candidates(space):
    prior, attack = tiny_prior(), small(space=space, cutoff=2)
    z = torch.randn(7, 8, generator=torch.Generator().manual_seed(derive(purpose="unattacked", seed=0)))
    w = prior.mapping(z, truncation=0.5, cutoff=2)
    w = w[:, :1].expand(-1, prior.card.num_ws, -1) if space == "w" else w
    torch.testing.assert_close(attack.sample_prior(7, GOAL, prior, seed=0), prior.synthesis(w).clamp(0, 1))


def test_without_mirroring_neither_ranking_nor_selection_mirrors():
    digits = TargetClasses(indices=(1,), names=GOAL.names, shape=SHAPE, flips_keep_class=False)
    target = classifier()
    result = run(small(), target, classes=digits)
    expected = target(result.starts).softmax(1)[:, 1]
    torch.testing.assert_close(result.start_confidence, expected, atol=1e-4, rtol=0)


def test_pixel_inversion_makes_the_target_sure_of_noise():
    target = classifier()
    result = run(PixelInversion(images=4, steps=60, bound=1.0), target, prior=None)
    assert float(result.confidence.mean()) > 0.9
    assert float(result.start_confidence.mean()) < 0.7
    near = run(PixelInversion(images=4, steps=60, bound=0.05), target, prior=None)
    assert float((near.images - near.starts).abs().max()) <= 0.05 + 1e-6
    assert (near.confidence > near.start_confidence).all()
    expected = target(result.images).softmax(1).gather(1, result.labels.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(result.confidence, expected)
    assert CLASS_ATTACKS["pixel-inversion"]().control
