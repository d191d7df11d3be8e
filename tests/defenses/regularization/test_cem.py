from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.cluster import KMeans

from sparseguard.core.progress import Silent
from sparseguard.core.staged_model import remove_noise
from sparseguard.data import DATASETS
from sparseguard.defenses.regularization.cem import ConditionalEntropyMaximization, k_means, mean_log_variance
from sparseguard.targets import BACKBONES, Fit, state_hash, train
from sparseguard.types import BatchContext, EpochContext, ImageSet

PRIVATE = DATASETS["fashion-mini"](private=100).load().private
CPU = torch.device("cpu")


def built(defense, width=16):
    blueprint = replace(BACKBONES["linear-shallow"](width=width).blueprint(10), tap="first_linear")
    return defense.edit_blueprint(blueprint, {}).build(PRIVATE.shape, len)


def trained(defense, epochs=3, lr=0.01, **options):
    model = built(defense)
    fit = Fit(epochs=epochs, batch_size=30, lr=lr, patience=None)
    options = {"progress": Silent(), **options}
    train(model, defense, {}, PRIVATE, fit, seed=1, device=CPU, label="t", tap_stage="released", **options)
    return model


def moment(model, images=PRIVATE, seed=0):
    return EpochContext(
        model=model.eval(), images=images, state={}, epoch=0, phase="train", starts_phase=True, seed=seed, device=CPU
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60), st.integers(1, 6), st.integers(1, 5))
def test_k_means_ends_where_sklearn_ends_from_the_same_start(seed, n, d, k):
    points = np.random.default_rng(seed).normal(size=(n, d)) + np.arange(n)[:, None] % 3 * 4
    theirs = KMeans(k, init=points[:k], n_init=1, max_iter=60, tol=0, algorithm="lloyd").fit(points)
    ours = k_means(torch.from_numpy(points), torch.from_numpy(points[:k])).numpy()
    inertia = ((points[:, None] - ours[None]) ** 2).sum(2).min(1).sum()
    assert inertia == pytest.approx(theirs.inertia_, rel=1e-9)


def test_k_means_copes_with_equal_points_and_with_none():
    equal = torch.ones(4, 2)
    assert torch.equal(k_means(equal, equal[:3]), torch.ones(3, 2))
    assert k_means(equal[:0], equal[:0]).shape == (0, 2)


def slow_log_spread(features, labels, centroids, counts, sigma):
    """The definition, image by image."""
    by_class = []
    for label in sorted(set(labels.tolist())):
        mine = features[labels == label]
        clusters = {}
        for z in mine:
            distances = [float(((z - c) ** 2).sum()) for c in centroids[label][: counts[label]]]
            clusters.setdefault(int(np.argmin(distances)), []).append(z)
        total = torch.zeros((), dtype=features.dtype)
        for k, members in clusters.items():
            variance = torch.stack([(z - centroids[label][k]) ** 2 for z in members]).mean(0)
            total = total + len(members) / len(mine) * torch.log(variance + sigma**2 + 1e-6).mean()
        by_class.append(total)
    return torch.stack(by_class).mean()


def drawn(seed, n, classes=4, clusters=3, d=5):
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(n, d, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=generator)
    counts = torch.randint(1, clusters + 1, (classes,), generator=generator)
    centroids = torch.rand(classes, clusters, d, generator=generator, dtype=torch.float64)
    centroids[torch.arange(clusters) >= counts.unsqueeze(1)] = 0  # padding, as before_epoch leaves it
    return features, labels, centroids, counts


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0.01, 0.5))
def test_the_penalty_is_as_defined(seed, n, sigma):
    given_values = drawn(seed, n)
    torch.testing.assert_close(mean_log_variance(*given_values, sigma), slow_log_spread(*given_values, sigma))


def test_the_penalty_has_the_gradient_of_finite_differences():
    features, labels, centroids, counts = drawn(3, 12)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda value: mean_log_variance(value, labels, centroids, counts, 0.1), features)


def test_an_empty_batch_costs_nothing():
    features, labels, centroids, counts = drawn(3, 12)
    assert float(mean_log_variance(features[:0], labels[:0], centroids, counts, 0.1)) == 0


def test_only_the_batchs_own_images_count():
    features, labels, centroids, counts = drawn(5, 8)
    logits, state = torch.zeros(8, 4), {"centroids": centroids, "counts": counts}
    outputs = {"bounded": features}
    batch = BatchContext(
        images=torch.zeros(8, 1, 2, 2),
        labels=labels,
        outputs=outputs,
        logits=logits,
        state=state,
        epoch=0,
        phase="",
        own_count=6,
    )
    expected = 2.5 * slow_log_spread(features[:6], labels[:6], centroids, counts, 0.1)
    component = ConditionalEntropyMaximization(sigma=0.1, lambd=2.5)
    torch.testing.assert_close(component.penalty(batch), expected)


def test_features_nearer_to_their_centroids_cost_less():
    features, labels, _, _ = drawn(4, 40)
    centroids = torch.stack([features[labels == label].mean(0, keepdim=True) for label in range(4)])
    counts = torch.ones(4, dtype=torch.long)
    nearer = torch.lerp(features, centroids[labels, 0], 0.5)
    far, near = (float(mean_log_variance(values, labels, centroids, counts, 1e-3)) for values in (features, nearer))
    assert near == pytest.approx(far + np.log(0.25), abs=0.01)


@torch.no_grad()
def test_centroids_are_those_of_each_class():
    component = ConditionalEntropyMaximization(clusters=4)
    model = built(component)
    few = [*(PRIVATE.labels == 0).nonzero().flatten().tolist(), *(PRIVATE.labels == 1).nonzero().flatten().tolist()[:2]]
    images = PRIVATE.select(torch.tensor(few))
    state = component.on_epoch_start(moment(model, images))
    assert state["counts"].tolist() == [4, 2] + [0] * 8
    assert state["centroids"].shape == (10, 4, 16)
    features = model.forward_to(images.images, "bounded")
    two = features[images.labels == 1]
    found = state["centroids"][1, :2]
    torch.testing.assert_close(found[found[:, 0].argsort()], two[two[:, 0].argsort()])
    assert not state["centroids"][1, 2:].any()
    mine, centroids = features[images.labels == 0], state["centroids"][0]
    again = KMeans(4, init=centroids.numpy(), n_init=1, max_iter=1).fit(mine.numpy())
    np.testing.assert_allclose(again.cluster_centers_, centroids.numpy(), atol=1e-5)  # Lloyd's iterations rest there


def test_centroids_follow_from_the_seed():
    component = ConditionalEntropyMaximization()
    model = built(component)
    one, same, other = (component.on_epoch_start(moment(model, seed=seed))["centroids"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_training_draws_features_to_their_classes():
    spreads = []
    for lambd in (0.0, 0.3):
        component = ConditionalEntropyMaximization(lambd=lambd)
        model = trained(component, epochs=20, lr=0.001)
        features = model.eval().forward_to(PRIVATE.images, "bounded").detach().double()
        state = component.on_epoch_start(moment(model))
        spreads.append(
            float(slow_log_spread(features, PRIVATE.labels, state["centroids"].double(), state["counts"], 0.025))
        )
    assert spreads[1] < spreads[0] - 0.3


@torch.no_grad()
def test_what_leaks_is_the_bounded_output_with_noise():
    component = ConditionalEntropyMaximization(sigma=0.1)
    model = built(component, width=200).eval()
    bounded = model.forward_to(PRIVATE.images, "bounded")
    torch.testing.assert_close(bounded, torch.special.expit(model.forward_to(PRIVATE.images, "first")))
    torch.manual_seed(0)
    noise = model.forward_to(PRIVATE.images, "released") - bounded
    assert stats.kstest(noise.flatten().numpy(), stats.norm(scale=0.1).cdf).pvalue > 0.01
    spread = np.std(bounded.double().numpy(), axis=0).mean() / 0.1
    assert component.facts(model, PRIVATE.images, {})["spread_to_noise"] == pytest.approx(spread, rel=1e-4)


def test_it_notices_that_its_noise_is_gone():
    component = ConditionalEntropyMaximization()
    model = built(component).eval()
    assert component.find_inactivity(model, PRIVATE.images) is None
    assert "the noise is" in component.find_inactivity(remove_noise(model), PRIVATE.images)
    del model.stages["released"]
    assert "no bounded features" in component.find_inactivity(model, PRIVATE.images)
    assert "centroids" in component.find_unaccounted_access()


class KilledError(Exception):
    pass


class Interrupted(Silent):
    """Kills the training in its sixth step."""

    @contextmanager
    def task(self, label, total):
        seen = [0]

        def advance(steps):
            seen[0] += steps
            if seen[0] == 6:
                raise KilledError

        yield advance


def test_a_resumed_training_ends_with_the_same_weights(tmp_path):
    component, checkpoint = ConditionalEntropyMaximization(), tmp_path / "c.safetensors"
    straight = trained(component)
    with pytest.raises(KilledError):
        trained(component, progress=Interrupted(), checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert checkpoint.exists()
    resumed = trained(component, checkpoint=checkpoint, checkpoint_seconds=0.0)
    assert state_hash(resumed) == state_hash(straight)


def test_a_class_without_images_is_passed_over():
    labels = torch.zeros(6, dtype=torch.long)
    images = ImageSet(pixels=PRIVATE.pixels[:6], labels=labels, classes=PRIVATE.classes)
    component = ConditionalEntropyMaximization()
    state = component.on_epoch_start(moment(built(component), images))
    assert state["counts"].tolist() == [3] + [0] * 9
    features = torch.rand(2, 16)
    unknown = mean_log_variance(features, torch.tensor([4, 5]), state["centroids"], state["counts"], 0.1)
    assert float(unknown) == 0
